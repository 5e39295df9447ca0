/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
static int limit = 20;
#else
static int limit = 10;
#endif
int check(long n) { limit++; return take(n, limit) + 1; }
