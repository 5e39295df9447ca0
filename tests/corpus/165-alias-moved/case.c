/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int one(long n) { return take(n, 1) + 1; }
int two(long n) { return take(n, 2) + 2; }
int data_one[2] = { 1, 2 };
int data_two[2] = { 3, 4 };
#ifdef NEW
int ask(long n) __attribute__((alias("two")));
weak int try_it(long n) __attribute__((alias("one")));
extern int table[2] __attribute__((alias("data_two")));
#else
int ask(long n) __attribute__((alias("one")));
weak int try_it(long n) __attribute__((alias("two")));
extern int table[2] __attribute__((alias("data_one")));
#endif
int keep(long n)
{
#ifdef NEW
	n++;
#endif
	return take(n, 3) + 1;
}
