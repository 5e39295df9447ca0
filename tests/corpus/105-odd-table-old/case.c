/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
	take(n, 1);
#ifdef NEW
	take(n, 2);
#else
	asm volatile("1: nop\n.pushsection __ex_table, \"a\"\n.long 1b - ., 1b - .\n.popsection");
#endif
	return take(n, 3) + 1;
}
