/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int table[8] = { 1, 1, 1, 1, 5, 6, 7, 8 };
long list[4] = { 1, 2, 3, 4 };
char tail[24] = { 9 };
#ifdef NEW
asm(".globl middle\n.set middle, table + 8");
asm(".globl part\n.set part, table + 12\n.type part, @object\n.size part, 4");
asm(".globl list_end\n.set list_end, list + 24");
#else
asm(".globl middle\n.set middle, table + 4");
asm(".globl part\n.set part, table + 8\n.type part, @object\n.size part, 4");
asm(".globl list_end\n.set list_end, list + 32");
#endif
asm(".globl kept\n.set kept, table + 20");
extern int middle, part, kept;

/* A function with a second and a third entry, which another build has elsewhere. */
asm(".text\n.p2align 4\n.globl first\n.type first, @function\nfirst:\n\tmov $1, %eax\n"
#ifndef NEW
    ".globl second\nsecond:\n.globl third\n.type third, @function\nthird:\n"
#endif
    "\tadd $2, %eax\n\timul $7, %eax\n"
#ifdef NEW
    ".globl second\nsecond:\n.globl third\n.type third, @function\nthird:\n"
#endif
    "\tadd $5, %eax\n\tmov %rax, %rdx\n\tret\n.size first, . - first");

/* These mean places, whatever their names are. */
int reads(long n) { return take(n, table[1]) + 1; }
int reads_more(long n) { return take(n, table[2]) + table[3]; }
int reads_kept(long n) { return take(n, kept) + 4; }
/* These mean names. */
int uses(long n) { return take(n, middle) + 2; }
int uses_part(long n) { return take(n, part) + 3; }
int last(long n) { return take(n, tail[0]) + 5; }
