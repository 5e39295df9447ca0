/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define LIMIT 4096
#else
#define LIMIT 1024
#endif
int check(long n) { if (n > LIMIT) return -22; return handle((void *)n) + 1; }
int other(long n) { return take(n, 1024) + 1; }
