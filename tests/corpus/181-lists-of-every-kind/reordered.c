/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
asm(".pushsection order, \"a\"\n.globl b, a\n.type b, @object\n.size b, 4\nb: .long 2\n"
    ".type a, @object\n.size a, 4\na: .long 1\n.popsection");
#else
asm(".pushsection order, \"a\"\n.globl b, a\n.type a, @object\n.size a, 4\na: .long 1\n"
    ".type b, @object\n.size b, 4\nb: .long 2\n.popsection");
#endif
int reordered(void) { return take(1, 1) + 1; }
