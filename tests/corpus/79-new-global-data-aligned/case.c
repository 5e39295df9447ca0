/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
static char small = 3;
static char __attribute__((__aligned__(64))) line[64] = { 1, 2 };
static u64 __attribute__((__aligned__(32))) zeroed[3];
#endif
int check(long n)
{
#ifdef NEW
	handle(&small); handle(line); handle(zeroed);
	small++;
#endif
	return take(n, 1) + 1;
}
