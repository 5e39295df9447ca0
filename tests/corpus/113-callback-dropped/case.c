/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
static __attribute__((unused)) int ready(void) { return take(1, 4); }
#endif
int check(long n)
{
#ifdef NEW
	if (n > 8) return -1;
#endif
	return handle((void *)n) + 1;
}
