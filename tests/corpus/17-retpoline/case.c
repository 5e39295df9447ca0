/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n, long (*f)(long))
{
	take(n, 2);
	asm volatile(RETPOLINE_CALL(rax) : : "a" (f) : "memory", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11");
#ifdef NEW
	n *= 3;
#endif
	return take(n, 1) + 1;
}
