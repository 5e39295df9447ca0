/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int level = 3;
static noinline int twin(long n) { level++; return take(n, 1) + level; }
int check_a(long n)
{
#ifdef NEW
	take(n, 5);
#endif
	return twin(n) + level;
}
