/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int take_more(long a, long b);
#if defined(IMAGE)
#define take take_more
#endif
int same(long n) { return take(n, 2) + 1; }
#undef take
int check(long n)
{
#if defined(NEW)
	take(n, 4);
#endif
	return handle((void *)n) + take_more(n, 3);
}
