/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int lp_original_check(long n);
#endif
int user(long n)
{
#ifdef NEW
	if (n > 8) return lp_original_check(n);
#endif
	return take(n, 6) + 1;
}
