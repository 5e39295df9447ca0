/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int helper(long n, int *p);
int helper_again(long n);
extern int shared_level;
#endif
int changed_too(long n);
int check(long n)
{
#ifdef NEW
	int x = 3;
	if (helper(n, &x) || helper_again(n) || shared_level++)
		return -1;
#endif
	handle(changed_too);
	return changed_too(n) + 1;
}
