/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int limits[4] = { 1, 2 };
#else
int limits[2] = { 1, 2 };
#endif
int check(long n) { limits[n & 1]++; return take(n, limits[0]) + 1; }
