/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int noinline hook(long n) { return take(n, 11) + 1; }
int level = 5;
int namesake(long n) { return take(n, 12) + 1; }
int brought(long n) { return take(n, 13) + 1; }
int weak strong_elsewhere(long n) { return take(n, 14) + 1; }
#endif
int check(long n)
{
#ifdef NEW
	take(n, 4);
#endif
	return take(n, 1) + 1;
}
int neighbour(long n) { return take(n, 2) + handle((void *)n); }
