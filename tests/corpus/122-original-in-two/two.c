/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static noinline int check(long n)
{
#ifdef NEW
	return take(n, 4) + 6;
#else
	return take(n, 5) + 3;
#endif
}
int two(long n) { return check(n) + 3; }
