/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int one(long n) { return take(n, 1) + 1; }
int two(long n) { return take(n, 2) + 2; }
#ifdef NEW
int ask(long n) __attribute__((alias("two")));
#else
int ask(long n) __attribute__((alias("one")));
#endif
int check(long a, long b)
{
	if (a > 4) {
#ifdef NEW
		return 1;
#else
		static int seen;
		if (++seen > 3)
			return take(seen, 1);
#endif
	}
	if (b > 5) {
#ifdef NEW
		static int seen;
		if (++seen > 3)
			return take(seen, 1);
#else
		return 1;
#endif
	}
	return 2;
}
