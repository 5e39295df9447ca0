/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define ALT(old, new, feature) ALTERNATIVE_AS(ALT_ENTRY_12(feature), old, new)
int check(long n)
{
	take(n, 9);
	asm volatile(ALT("nop; nop; nop", "lfence", 0x72) ::: "memory");
#ifdef NEW
	n += 5;
#endif
	asm volatile(ALT("call slow_clear", "call fast_clear", 0x90) ::: "memory", "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11");
	asm volatile(ALT(".skip 12, 0x90", "mov $3, %%eax\n 1: dec %%eax\n jnz 1b", 0x91) ::: "rax", "memory");
	asm volatile(ALT("nop", "", 0x95) ::: "memory");
	return take(n, 1) + 1;
}
int other(long n) { take(n, 8); asm volatile(ALT("nop; nop; nop", "mfence", 0x73) ::: "memory"); return take(n, n) + 1; }
