/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#if defined(NEW) || defined(IMAGE)
#define CALLED "take"
#else
#define CALLED ".altinstr_replacement"
#endif

int check(long n)
{
	asm volatile("call " CALLED : "+D" (n) : : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory");
	return take(n, 1) + 1;
}
int other(long n)
{
	asm volatile(ALTERNATIVE("nop; nop; nop", "lfence", 0x84));
	return take(n, 2) + 1;
}
