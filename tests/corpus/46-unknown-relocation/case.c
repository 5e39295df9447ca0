/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
asm(".section .data.odd, \"aw\"\n.type odd, @object\nodd: .short outside\n.short 0\n.size odd, 4\n.text");
extern int odd;
#endif
int check(long n)
{
#ifdef NEW
	take(odd, 2);
#endif
	return take(n, 3) + 1;
}
int got(long n)
{
	take(n, 4);
#ifdef NEW
	asm volatile("mov outside@GOTPCREL(%%rip), %%rax" ::: "rax");
#endif
	return take(n, 3) + 2;
}
