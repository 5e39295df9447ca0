/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define FENCE "mfence"
#else
#define FENCE "lfence"
#endif
int check(long n) { take(n, 9); asm volatile(ALTERNATIVE("nop; nop; nop", FENCE, 0x72) ::: "memory"); return take(n, 1) + 1; }
int same(long n) { take(n, 8); asm volatile(ALTERNATIVE("nop; nop; nop", "lfence", 0x72) ::: "memory"); return take(n, 1) + 1; }
