/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
	take(n, 2);
	asm volatile(PARAVIRT_CALL(pv_ops+16, 2) ::: "memory", "rax");
#ifdef NEW
	n *= 3;
#endif
	return take(n, 1) + 1;
}
int other(long n) { take(n, 2); asm volatile(PARAVIRT_CALL(pv_ops+24, 3) ::: "memory", "rax"); return take(n, n) + 1; }
