/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct key { int enabled; u64 type; };
extern struct key foreign_key;
static struct key own_key used = { 1, 3 };
int check(long n)
{
	take(n, 0);
	if (STATIC_BRANCH(&foreign_key, 0))
		n += handle((void *)1);
#ifdef NEW
	n ^= 4;
#endif
	if (STATIC_BRANCH(&own_key, 1))
		n += handle((void *)2);
	return take(n, 2) + 1;
}
int other(long n) { take(n, 1); if (STATIC_BRANCH(&own_key, 0)) return 3; return take(n, n) + 1; }
