/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
#ifdef NEW
	if (n < 0 && take(n, 1))
		return -1;
#endif
	return handle((void *)n) + 3;
}
int caller(long n) { return check(n) + 1; }
