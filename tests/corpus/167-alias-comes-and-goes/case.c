/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int long_name(long n)
{
#ifdef NEW
	n++;
#endif
	return take(n, 1) + 1;
}
int second_name(long n)
{
#ifdef NEW
	n--;
#endif
	return take(n, 2) + 2;
}
int third(long n) { return take(n, 3) + 3; }
#ifdef NEW
int f(long n) __attribute__((alias("second_name")));
static int local(long n) __attribute__((alias("second_name")));
#else
int other_name(long n) __attribute__((alias("long_name")));
static int local(long n) __attribute__((alias("third")));
#endif
int user(long n) { return local(n + 1) + 3; }
