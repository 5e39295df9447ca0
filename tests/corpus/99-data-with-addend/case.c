/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct item { long a, b, c; };
static struct item items[3] used = { { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 9 } };
#ifdef NEW
static long *middle[2] used = { &items[1].b, &items[2].c };
#endif
int check(long n)
{
#ifdef NEW
	handle(middle);
	take(items[2].b, items[n].c);
#endif
	return handle(&items[1].c) + 1;
}
