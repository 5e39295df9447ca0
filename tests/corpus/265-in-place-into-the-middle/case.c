/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* The labels of a function, which is another one now: who has the table would jump into it. */
int run(long n)
{
	static const void *const labels[] = { &&a, &&b };
#ifdef NEW
	n = take(n, 3);
#endif
	goto *labels[n & 1];
a:
	return take(n, 1) + 1;
b:
	return take(n, 2) + 2;
}
