/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int level = 3;
static noinline int twin(long n) { level++; return take(n, 2) + level; }
int check_b(long n)
{
#ifdef NEW
	take(n, 6);
#endif
	return twin(n) + level * 2;
}
