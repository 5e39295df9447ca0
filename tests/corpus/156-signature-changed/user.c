/* SPDX-License-Identifier: GPL-2.0-only */
/* The same in both builds. */
#include "kernel.h"

#define HELPER(n) take(n, 6) + 2
#include "helper.h"
long stale(long a, long b);
long user(long n) { return stale(n, 2) + helper(n) + 1; }
