/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int shared_level = 4;
int helper(long n, int *p) { *p += take(n, 55); return *p + shared_level; }
int helper_again(long n) __attribute__((alias("helper_new")));
int helper_new(long n) { return take(n, 56) + 1; }
#endif
int changed_too(long n)
{
#ifdef NEW
	take(n, 4);
#endif
	return take(n, 1) + 1;
}
int stays(long n) { return take(n, 2) + 5; }
