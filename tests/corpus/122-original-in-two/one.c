/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static noinline int check(long n)
{
#ifdef NEW
	return take(n, 3) + 5;
#else
	return take(n, 3) + 2;
#endif
}
int one(long n) { return check(n) + 2; }
