/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#if defined(IMAGE)
#define FENCE "mfence"
#else
#define FENCE "lfence"
#endif
int check(long n)
{
#if defined(NEW)
	take(n, 4);
#endif
	take(n, 9);
	asm volatile(ALTERNATIVE("nop; nop; nop", FENCE, 0x72) ::: "memory");
	return take(n, 1) + 1;
}
int warns(long n)
{
#if defined(NEW)
	take(n, 4);
#endif
#if defined(IMAGE)
	if (unlikely(n == 7)) WARN_HERE(7, 0x905);
#else
	if (unlikely(n == 7)) WARN_HERE(7, 0x901);
#endif
	return take(n, 2) + 1;
}
int same(long n) { return take(n, 3) + handle((void *)n); }
