/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
	take(n, 2);
	asm volatile(STATIC_CALL(event) ::: "memory", "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11");
#ifdef NEW
	n *= 3;
#endif
	return take(n, 1) + 1;
}
