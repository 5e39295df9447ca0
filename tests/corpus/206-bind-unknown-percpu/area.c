/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int in(".data..percpu") real_hits = 1;
int in(".data..percpu") real_level = 2;
struct { int first, second; } in(".data..percpu") real_pair = { 3, 4 };
asm(".globl real_second\n.set real_second, real_pair + 4");
