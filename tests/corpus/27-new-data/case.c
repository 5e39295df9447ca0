/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
static int level = 3;
static int zeroed;
static const int table[4] = { 5, 6, 7, 8 };
static const char *const texts[2] = { "one", "two" };
static int in(".data..percpu") percpu_hits;
#endif
int check(long n)
{
#ifdef NEW
	zeroed += level++;
	_printk(texts[n & 1], table[n & 3], zeroed);
	asm volatile("incl %%gs:%0" : "+m" (percpu_hits));
#endif
	return handle((void *)n) + 1;
}
