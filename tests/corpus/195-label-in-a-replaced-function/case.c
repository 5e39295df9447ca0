/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define FACTOR "9"
#define GONE
#else
#define FACTOR "7"
#define GONE ".globl gone\ngone:\n"
#endif
asm(".text\n.p2align 4\n.globl first\n.type first, @function\nfirst:\n\tmov $1, %eax\n\tadd $2, %eax\n"
    ".globl second\nsecond:\n" GONE ".Lno_name:\nlocal:\n\timul $" FACTOR ", %eax\n\tadd $5, %eax\n\tmov %rax, %rdx\n\tret\n"
    ".size first, . - first");
/* The same label, and nothing differs. */
asm(".p2align 4\n.globl other\n.type other, @function\nother:\n\tmov $1, %eax\n\tadd $2, %eax\n"
    ".globl other_second\nother_second:\n\timul $7, %eax\n\tret\n.size other, . - other");
