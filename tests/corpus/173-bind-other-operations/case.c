/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static noinline int one(long n) { return take(n, 1) + 1; }
static noinline int two(long n) { return take(n, 2) + 1; }
static int (*const steps[3])(long) = {
#if defined(IMAGE)
	two, one, two,
#else
	one, two, two,
#endif
};
int check(long n)
{
#if defined(NEW)
	handle((void *)n);
#endif
	return steps[n & 1](n) + 1;
}
int same(long n) { return one(n) + two(n); }
