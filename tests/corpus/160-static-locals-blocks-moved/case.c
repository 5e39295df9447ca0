/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define LIKELY(x) __builtin_expect(!!(x), 0)
#else
#define LIKELY(x) __builtin_expect(!!(x), 1)
#endif
int check(long n)
{
	if (LIKELY(n > 40)) {
		static int seen;
		seen |= n;
		return take(n, 3);
	}
	if (n < -7) {
		static int seen;
		seen ^= n;
		return take(n, 3) + 1;
	}
	if (LIKELY(n == 11)) {
		static int seen;
		seen |= n;
		return take(n, 3);
	}
	return handle(&n);
}
