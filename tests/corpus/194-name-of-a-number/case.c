/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
asm(".globl size_of_it\n.set size_of_it, 6");
asm(".weak may_be\n.set may_be, 2");
int place(long n) { return take(n, 4) + 1; }
#else
asm(".globl size_of_it\n.set size_of_it, 5");
asm(".globl place\n.set place, 64");
asm(".weak may_be\n.set may_be, 1");
#endif
asm(".globl the_same\n.set the_same, 7");
asm(".globl __crc_exported\n.set __crc_exported, "
#ifdef NEW
    "11"
#else
    "10"
#endif
);
extern char size_of_it[], the_same[];
int uses(long n) { return take(n, (long)size_of_it) + 2; }
int uses_other(long n) { return take(n, (long)the_same) + 2; }
