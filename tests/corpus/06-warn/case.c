/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
	WARN_ON(n < 0);
#ifdef NEW
	n += 3;
#endif
	WARN_ON(n > 100);
	return handle((void *)n) + 1;
}
int other(long n) { WARN_ON(n < 0); return take(n, n) + 1; }
