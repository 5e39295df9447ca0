/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int tentative[8];
#endif
int before_it[8];
int check(long n)
{
	before_it[1]++;
#ifdef NEW
	take(tentative[n & 7], 1);
#endif
	return take(n, 1) + 1;
}
