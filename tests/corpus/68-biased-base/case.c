/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static long first[3] used;
static long table[8] used;
static long last[3] used;
int check(long n)
{
#ifdef NEW
	take(n, 1);
#endif
	return take(table[n - 8], table[n - 6]) + take(table[n + 9], first[n - 20]);
}
int same(long n) { return take(table[n - 8], table[n - 6]) + 1; }
