/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* An entry for code of another object: nobody would carry it. */
int table(long n)
{
#ifdef NEW
	n++;
#endif
	return take(n, 1) + 1;
}
asm(".pushsection .smp_locks, \"a\"\n.balign 4\n.long handle - .\n.popsection");
