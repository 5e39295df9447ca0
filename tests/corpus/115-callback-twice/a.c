/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
static used int ready(void) { return take(1, 1); }
#endif
int check_a(long n)
{
#ifdef NEW
	if (n > 8) return -1;
#endif
	return handle((void *)n) + 1;
}
