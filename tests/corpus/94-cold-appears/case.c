/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int __attribute__((__cold__)) complain(const char *what);
int appears(long n)
{
#ifdef NEW
	if (unlikely(n < 0)) { complain("new"); return take(n, 7) + 1; }
#endif
	return handle((void *)n) + 1;
}
int vanishes(long n)
{
#ifndef NEW
	if (unlikely(n < 0)) { complain("old"); return take(n, 8) + 1; }
#endif
	return handle((void *)n) + 2;
}
int keeps(long n) { if (unlikely(n < 0)) { complain("kept"); return take(n, 9) + 1; } return handle((void *)n) + 3; }
