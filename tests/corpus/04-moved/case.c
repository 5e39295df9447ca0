/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int counter;
#ifdef NEW
int inserted(long n) { counter += n; return take(n, counter) + 1; }
#endif
static noinline int helper(long n) { counter++; return handle((void *)n) + 2; }
int first(long n) { if (n > 5) return helper(n) + 1; _printk("first %ld\n", n); return helper(2) + counter; }
int second(long n) { return first(n) + helper(n); }
