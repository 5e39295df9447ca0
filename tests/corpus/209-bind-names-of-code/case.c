/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int in(".data..percpu") hits = 1;
extern int in(".data..percpu") foreign_hits;
extern long foreign_level;
static long level = 5;

int check(long n)
{
#ifdef NEW
	take(n, 4);
#endif
	asm volatile("incl %%gs:%0" : "+m" (hits));
	asm volatile("incl %%gs:%0" : "+m" (foreign_hits));
	level += n;
	return take(n, level) + foreign_level;
}
int other(long n) { return take(n, level++) + 1; }
