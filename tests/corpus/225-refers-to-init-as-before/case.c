/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int in(".init.data") at_boot = 3;
int noinline in(".init.text") setup(long n) { return take(n, at_boot++) + 1; }

extern int booting;

/* As __ref functions do. */
int check(long n)
{
	if (booting)
		n += setup(n) + at_boot;
#ifdef NEW
	take(n, 4);
#endif
	return take(n, 1) + 1;
}
