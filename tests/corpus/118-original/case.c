/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static noinline int inner(long n);
#ifdef NEW
extern __typeof__(inner) lp_original_inner;
int check(long n);
extern __typeof__(check) lp_original_check;
static int (*const kept)(long n) = lp_original_check;
int (*table[2])(long n) = { lp_original_check, lp_original_inner };
#endif
static noinline int inner(long n)
{
#ifdef NEW
	if (n < 0) return -22;
	return lp_original_inner(n);
#else
	return take(n, 2) + 1;
#endif
}
int other(long n) { return inner(n) + 2; }
int check(long n)
{
#ifdef NEW
	if (n > 8) return handle(lp_original_check) + handle((void *)&kept) + table[n & 1](n);
	return lp_original_check(n) + 1;
#else
	return take(n, 3) + 2;
#endif
}
