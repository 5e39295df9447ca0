/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

noinline int stays(long n) { return take(n, 1) + 3; }
noinline int changes(long n)
{
#ifdef NEW
	take(n, 4);
#endif
	return take(n, 1);
}
int check(long n)
{
#ifdef NEW
	if (n == 5)
		return take(n, 9);
#endif
	if (n & 1)
		return stays(n);
	return changes(n);
}
