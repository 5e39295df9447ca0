/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct key { int enabled; u64 type; };
#ifdef NEW
static struct key fresh_key used = { 0, 0 };
#endif
int check(long n)
{
	take(n, 0);
#ifdef NEW
	if (STATIC_BRANCH(&fresh_key, 0))
		n += handle((void *)1);
#endif
	return take(n, 2) + 1;
}
