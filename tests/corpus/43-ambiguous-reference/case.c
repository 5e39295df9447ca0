/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static long values[4] used = { 1, 2, 3, 4 };
#ifdef NEW
static long next used = 9;
#endif
int check(long n)
{
	long sum = 0;
	for (long *p = values; p != values + 4; p++)
		sum += take(*p, n);
#ifdef NEW
	sum += handle(&next);
#endif
	return sum;
}
