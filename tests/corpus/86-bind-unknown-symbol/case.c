/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int only_in_a_module(long n);
int twice_there(long n);
int check(long n)
{
#ifdef NEW
	only_in_a_module(n);
	twice_there(n);
#endif
	return take(n, 1) + 1;
}
