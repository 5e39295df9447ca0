/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int weak check(long n)
{
#ifdef NEW
	take(n, 4);
#endif
	return take(n, 1) + 1;
}
int neighbour(long n) { return take(n, 2) + 1; }
int neighbour2(long n) { return take(n, 3) + handle((void *)n); }
