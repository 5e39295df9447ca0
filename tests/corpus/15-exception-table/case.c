/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int fetch(const long *p)
{
	long value = 0, error = 0;
	take(1, 2);
	asm volatile("1: movq %2, %0\n2:\n" EX_TABLE(1b, 2b) : "=r" (value), "+r" (error) : "m" (*p));
#ifdef NEW
	if (value == 7)
		return -7;
#endif
	asm volatile goto("1: movq $0, %0\n" EX_TABLE(1b, %l1) : : "m" (*p) : "memory" : fault);
	return take(value, error) + 1;
fault:
	return -14;
}
int other(const long *p) { long v; take(1, 1); asm volatile("1: movq %1, %0\n2:\n" EX_TABLE(1b, 2b) : "=r" (v) : "m" (*p)); return take(v, 1) + 1; }
