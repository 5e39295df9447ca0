/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define CONSTANT(sym) ({ u64 c; \
	asm("mov %1, %0\n1:\n.pushsection runtime_ptr_" #sym ", \"a\"\n.long 1b - 8 - .\n.popsection" \
		: "=r" (c) : "i" (0x0123456789abcdefUL)); c; })

u64 limit = 5, bound = 6;
int check(u64 n)
{
#ifdef NEW
	return take(n, CONSTANT(bound)) + 1;
#else
	return take(n, CONSTANT(limit)) + 1;
#endif
}
