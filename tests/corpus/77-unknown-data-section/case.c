/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int in("..strange") kept = 4;
#ifdef NEW
static int in("..strange") fresh = 5;
#endif
int check(long n)
{
#ifdef NEW
	take(n, fresh++);
#endif
	return take(n, kept++) + 1;
}
