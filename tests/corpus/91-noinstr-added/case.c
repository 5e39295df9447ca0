/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define WHERE in(".noinstr.text")
#else
#define WHERE
#endif
int WHERE early(long n) { return take(n, 1) + 1; }
int check(long n) { return take(n, 2) + 1; }
