// SPDX-License-Identifier: GPL-2.0
// The other object of the module: names that main.c has as well.
#include <linux/module.h>
#include "kinds.h"

static int hits = 500;

static noinline int same(int n)
{
	ROOM();
	return 3 * n + BUILD;
}

POINTERS(same);

int second_same(int n)
{
	ROOM();
	return same(n) + hits;
}

int second_count(void)
{
	static int count;

	ROOM();
	return 10 * ++count + BUILD;
}
