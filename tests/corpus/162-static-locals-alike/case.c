/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
#ifdef NEW
	if (n == 77)
		return take(n, 9);
#endif
	if (take(n, 1)) {
		static int seen;
		seen += 1;
		handle(&seen);
	}
	if (take(n, 1)) {
		static int seen;
		seen += 1;
		handle(&seen);
	}
	return handle((void *)n) + 1;
}
