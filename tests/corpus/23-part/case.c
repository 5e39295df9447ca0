/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int work(long *p, long n)
{
	if (!p)
		return 0;
	for (long i = 0; i < n; i++) {
		p[i] += take(i, n);
		if (p[i] > 100) handle(p + i);
#ifdef NEW
		if (p[i] < -100) handle(p - i);
#endif
		if (p[i] == 77) take(p[i], 2);
		if (p[i] == 78) take(p[i], 3);
	}
	return take(n, n) + 1;
}
int one(long *p, long n) { return work(p, n) + 3; }
int two(long *p, long n) { take(n, 2); return work(p, n) + 4; }
