/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
/* Two lines more above: lines within #ifdef count on both sides. */
#line 12
#else
#line 10
#endif
int check(long n) { WARN_ON(n < 0); return handle((void *)n) + 1; }
int check2(long n) { WARN_ON(n > 7); return handle((void *)n) + 2; }
