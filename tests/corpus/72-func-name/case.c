/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int added(long n) { return show(__func__) + 1; }
#endif
int first(long n) { return show(__func__) + take(n, 1); }
int check(long n)
{
#ifdef NEW
	show(__func__);
#endif
	return show(__func__) + take(n, 2);
}
int last(long n) { return show(__func__) + take(n, 3); }
