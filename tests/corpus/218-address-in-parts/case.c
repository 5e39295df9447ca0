/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct gate { u16 low, selector, flags, middle; u32 high, reserved; };
extern struct gate gate;
extern u32 word, offset;
extern u8 bytes[8];
extern char text_start[];

#ifdef NEW
static void other(void) { take(1, 2); }
static long buffer[4];
#endif

/* the lower half: the upper one is the same for all of the kernel */
void half(long n)
{
	take(n, 1);
#ifdef NEW
	word = (u32)(u64)other;
#endif
}

/* as a distance */
void distance(long n)
{
	take(n, 2);
#ifdef NEW
	offset = (u32)((char *)other - text_start);
#endif
}

/* in three fields */
void three(long n)
{
	take(n, 3);
#ifdef NEW
	u64 a = (u64)other;
	gate.low = a;
	gate.middle = a >> 16;
	gate.high = a >> 32;
#endif
}

/* byte by byte */
void by_bytes(long n)
{
	take(n, 4);
#ifdef NEW
	u64 a = (u64)buffer;
	for (int i = 0; i < n; i++)
		bytes[i] = a >> (8 * i);
#endif
}

/* by an exchange */
void exchanged(long n)
{
	take(n, 5);
#ifdef NEW
	u32 a = (u32)(u64)buffer;
	asm volatile("xchg %0, %1" : "+r" (a), "+m" (word));
#endif
}

