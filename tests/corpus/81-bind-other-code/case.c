/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
#if defined(NEW)
	take(n, 4);
#elif defined(IMAGE)
	take(n, 5);
#endif
	return take(n, 1) + 1;
}
int same(long n) { return take(n, 2) + 1; }
int same2(long n) { return take(n, 3) + handle((void *)n); }
