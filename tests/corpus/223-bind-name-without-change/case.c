/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n) { return take(n, 1) + 1; }
#ifdef NEW
asm(".globl hook\n.set hook, check");
#endif
