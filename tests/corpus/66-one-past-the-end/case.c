/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static long values[4] used = { 1, 2, 3, 4 };
static long next used = 9;
int check(long n)
{
	long sum = 0;
	for (long *p = values; p != values + 4; p++)
		sum += take(*p, n);
#ifdef NEW
	sum += 3;
#endif
	return sum;
}
int unchanged(long n)
{
	for (long *p = values; p != values + 4; p++)
		n += take(*p, n);
	return n;
}
