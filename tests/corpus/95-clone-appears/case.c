/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static noinline int helper(long a, long *b)
{
#ifdef NEW
	return take(a, 3) + 1;
#else
	return take(a, *b) + 1;
#endif
}
int one(long n) { long x = n * 3; handle(&x); return helper(n, &x) + 1; }
int two(long n) { long x = n * 4; handle(&x); return helper(n + 2, &x) + x; }
