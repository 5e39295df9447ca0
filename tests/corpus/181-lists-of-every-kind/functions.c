/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int one(void) { return take(1, 1) + 1; }
int two(void) { return take(2, 2) + 1; }
#ifdef NEW
asm(".pushsection hooks, \"a\"\n.balign 8\n.quad one, two\n.popsection");
#else
asm(".pushsection hooks, \"a\"\n.balign 8\n.quad one, one\n.popsection");
#endif
