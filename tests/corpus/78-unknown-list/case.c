/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static const char text_a[] used = "a", text_b[] used = "b";
asm(".pushsection .strange_list, \"a\"\n.balign 8\n.quad text_a\n.popsection");
#ifdef NEW
asm(".pushsection .strange_list, \"a\"\n.balign 8\n.quad text_b\n.popsection");
#endif
int check(long n)
{
#ifdef NEW
	n++;
#endif
	return take(n, 1) + 1;
}
