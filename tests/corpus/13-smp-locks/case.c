/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int counter;
int check(long n)
{
	asm volatile(LOCK_PREFIX "incl %0" : "+m" (counter));
#ifdef NEW
	n *= 3;
#endif
	asm volatile(LOCK_PREFIX "decl %0" : "+m" (counter));
	return take(n, 1) + 1;
}
int other(long n) { asm volatile(LOCK_PREFIX "decl %0" : "+m" (counter)); return take(n, n) + 1; }
