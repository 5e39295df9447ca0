/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

u32 shift = 5;
int check(u32 n)
{
	asm("shrl $12, %0\n1:\n.pushsection runtime_shift_shift, \"a\"\n.long 1b - 1 - .\n.popsection" : "+r" (n));
#ifdef NEW
	take(n, 2);
#endif
	return take(n, 1) + 1;
}
