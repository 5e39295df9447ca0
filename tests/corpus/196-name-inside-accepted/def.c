/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int table[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
int other[8] = { 1, 2 };
#ifdef NEW
asm(".globl middle\n.set middle, table + 8");
asm(".globl beginning\n.set beginning, other");
asm(".globl added\n.set added, table + 12");
#else
asm(".globl middle\n.set middle, table + 4");
asm(".globl beginning\n.set beginning, table");
#endif
int reads(long n) { return take(n, table[1]) + other[1]; }
