/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int hook(long n);
#ifdef NEW
int noinline hook(long n) { return take(n, 11) + 1; }
#endif
int check(long n) { return hook(n) + take(n, 2); }
