/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int other(long n) { return take(n, 2) + 1; }
#ifdef NEW
extern __typeof__(other) lp_original_other;
#endif
int check(long n)
{
#ifdef NEW
	if (n > 8) return lp_original_other(n);
#endif
	return take(n, 3) + other(n);
}
