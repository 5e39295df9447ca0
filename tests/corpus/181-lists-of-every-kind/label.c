/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* A label of assembly without a size: other objects may know it, and what it names has no symbol of its own. */
#ifdef NEW
asm(".pushsection .rodata\n.globl steps_of_asm\n.balign 8\nsteps_of_asm: .quad 2, 3\n.popsection");
#else
asm(".pushsection .rodata\n.globl steps_of_asm\n.balign 8\nsteps_of_asm: .quad 1, 3\n.popsection");
#endif
int label(void) { return take(1, 1) + 1; }
