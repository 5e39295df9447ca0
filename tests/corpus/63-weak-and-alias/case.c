/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int weak check(long n)
{
#ifdef NEW
	take(n, 4);
#endif
	return take(n, 1) + 1;
}
int real(long n)
{
#ifdef NEW
	take(n, 5);
#endif
	return take(n, 3) + 1;
}
int other_name(long n) __attribute__((alias("real")));
int caller(long n)
{
#ifdef NEW
	take(n, 6);
#endif
	return other_name(n) + check(n);
}
