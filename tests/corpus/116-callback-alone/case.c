/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int ready(void);
int ready(void) { return take(1, 4); }
#endif
int check(long n) { return handle((void *)n) + 1; }
