/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct key { int enabled; u64 type; };
extern struct key key_a, key_b;
#if defined(IMAGE)
#define KEY &key_b
#else
#define KEY &key_a
#endif
int check(long n)
{
	take(n, 0);
#if defined(NEW)
	take(n, 4);
#endif
	if (STATIC_BRANCH(KEY, 0))
		n += handle((void *)1);
	return take(n, 2) + 1;
}
int same(long n) { if (STATIC_BRANCH(&key_a, 0)) n += 2; return take(n, 3) + handle(&key_b); }
