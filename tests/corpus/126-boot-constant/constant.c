/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define CONSTANT(sym) ({ u64 c; \
	asm("mov %1, %0\n1:\n.pushsection runtime_ptr_" #sym ", \"a\"\n.long 1b - 8 - .\n.popsection" \
		: "=r" (c) : "i" (0x0123456789abcdefUL)); c; })

u64 limit = 5;
static u64 own used = 6;
/* The register decides about the prefix. */
int check(u64 n)
{
	register u64 high asm("r12");

	asm("mov %1, %0\n1:\n.pushsection runtime_ptr_limit, \"a\"\n.long 1b - 8 - .\n.popsection"
		: "=r" (high) : "i" (0x0123456789abcdefUL));
#ifdef NEW
	take(n, CONSTANT(foreign));
	take(n, CONSTANT(own));
#endif
	return take(n, CONSTANT(limit)) + take(high, 1) + 1;
}
int same(u64 n) { return take(n, CONSTANT(limit)) + 1; }
extern u64 foreign;
int user(u64 n) { return take(n, foreign + own) + 1; }
