/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
#ifdef NEW
	if (n == 77)
		return 5;
#endif
	return n > 1 ? check(n - 1) * 3 + check(n - 2) + take(n, 2) : take(n, 1) + 1;
}
