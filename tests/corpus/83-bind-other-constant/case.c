/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#if defined(IMAGE)
static const int table[4] = { 5, 6, 7, 9 };
#else
static const int table[4] = { 5, 6, 7, 8 };
#endif
int check(long n)
{
#if defined(NEW)
	take(n, 4);
#endif
	return take(n, table[n & 3]) + 1;
}
int same2(long n) { return take(n, 3) + handle((void *)n); }
