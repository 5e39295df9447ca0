/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
static int in(".init.text") start(void) { return take(1, 1); }
static int (*in(".initcall6.init") used __initcall__kmod_case__1_2_start6)(void) = start;
#endif
int check(long n) { return take(n, 1) + 1; }
