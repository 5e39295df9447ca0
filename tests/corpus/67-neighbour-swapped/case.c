/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int first used = 1;
#ifdef NEW
static int between used = 5;
#endif
static int second used = 2;
int check(long n)
{
	n += first;
#ifdef NEW
	return take(n, between) + 1;
#else
	return take(n, second) + 1;
#endif
}
int keep(long n) { return take(second, first) + 2; }
