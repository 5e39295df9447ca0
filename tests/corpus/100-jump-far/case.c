/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
	long sum = n * 3 + 7;
#ifdef NEW
	sum += take(n, 2);
#endif
	return take(sum, 1) + handle((void *)sum);
}
