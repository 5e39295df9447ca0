/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int first(long n) { return show("held by the kernel") + take(n, 1); }
int check(long n)
{
#ifdef NEW
	show("held by the kernel");
	show("by the kernel");
	show("not held by anybody");
#endif
	return show("of check") + take(n, 2);
}
