/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int first(void) { static int hits; return ++hits + take(hits, 2); }
int check(long n)
{
#ifdef NEW
	static int calls;
	calls += take(n, 1);
	return calls + handle((void *)n);
#else
	return handle((void *)n) + 3;
#endif
}
