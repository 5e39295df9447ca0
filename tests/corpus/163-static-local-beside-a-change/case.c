/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define MORE(x) take(x, 3)
#else
#define MORE(x) 0
#endif
int check(long n)
{
	if (n > 40) {
		static int seen;
		seen += 1 + MORE(n);
		return take(seen, n);
	}
	if (n < -7) {
		static int seen;
		seen += 2 + MORE(n);
		return take(seen, n);
	}
	return 2;
}
