/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int ready(void);
int ready(void) { return take(1, 4); }
int check(long n)
{
#ifdef NEW
	if (n > 8) return -1;
#endif
	return handle((void *)n) + 1;
}
