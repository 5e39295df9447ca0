/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#if defined(IMAGE)
int take_more(long a, long b);
#define take take_more
#endif
int check(long n)
{
#if defined(NEW)
	handle((void *)n);
#endif
	return take(n, 1) + 1;
}
#undef take
int same(long n) { return take(n, 2) + 1; }
