/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
	{ static int hits; hits += take(n, 1); }
#ifdef NEW
	{ static int hits; hits += take(n, 4); if (hits) handle(&hits); }
#endif
	{ static int hits; hits += take(n, 2); }
	return handle((void *)n) + 1;
}
