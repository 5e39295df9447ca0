/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int in(".data..percpu") own_hits = 1;
static int in(".data..percpu") own_hits2 used = 1;
extern int in(".data..percpu") foreign_hits;
int check(long n)
{
	asm volatile("incl %%gs:%0" : "+m" (own_hits));
#ifdef NEW
	asm volatile("incl %%gs:%0" : "+m" (own_hits2));
	asm volatile("incl %%gs:%0" : "+m" (foreign_hits));
	handle(&own_hits2);
#endif
	return take(n, 1) + 1;
}
int other(long n) { asm volatile("incl %%gs:%0" : "+m" (foreign_hits)); return take(n, 3) + 1; }
