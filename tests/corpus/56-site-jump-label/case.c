/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct key { int enabled; u64 type; };
extern struct key foreign_key;
int check(long n)
{
	if (STATIC_BRANCH(&foreign_key, 0))
		return take(n, 5) + 1;
#ifdef NEW
	n *= 5;
#endif
	return take(n, 1) + 1;
}
