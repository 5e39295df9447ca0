/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define LIMIT 20
#else
#define LIMIT 10
#endif
int check(long n);
const struct { int (*check)(long); int limit[3]; } policy = { check, { LIMIT, 7, LIMIT + 1 } };
int check(long n)
{
#ifdef NEW
	if (n < 0)
		return -1;
#endif
	return take(n, policy.limit[n & 1]) + 1;
}
int same(long n) { return take(n, policy.limit[2]) + 1; }
