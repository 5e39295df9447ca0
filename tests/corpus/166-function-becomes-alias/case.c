/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int worker(long n) { return take(n, 1) + 1; }
int helper(long n) { return take(n, 2) + 2; }
#ifdef NEW
int f(long n) __attribute__((alias("worker")));
int g(long n) { return take(n, 3) + 3; }
#else
int f(long n) { return take(n, 4) + 4; }
int g(long n) __attribute__((alias("helper")));
#endif
