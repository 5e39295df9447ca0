/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
#if defined(NEW)
	take(n, 4);
#endif
#if defined(IMAGE)
	return show("of the kernel") + 1;
#else
	return show("of the build!") + 1;
#endif
}
int same2(long n) { return take(n, 3) + handle((void *)n); }
