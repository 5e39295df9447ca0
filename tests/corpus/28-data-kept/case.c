/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int zeroed[4];
static int level = 3;
static const int table[4] = { 5, 6, 7, 8 };
int in(".data..percpu") percpu_hits = 1;
static int in(".data..read_mostly") mostly = 9;
int check(long n)
{
	zeroed[n & 3] += level++;
	asm volatile("incl %%gs:%0" : "+m" (percpu_hits));
#ifdef NEW
	take(mostly, 0);
#endif
	return handle(zeroed) + table[n & 3] + take((long)&level, mostly);
}
