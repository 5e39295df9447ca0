/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
static noinline int vet(long n) { if (n > 9) return take(n, 9) + 1; return 0; }
#endif
int check(long n)
{
#ifdef NEW
	if (vet(n)) return -1;
	if (vet(n + 1)) return -2;
#endif
	return handle((void *)n) + 1;
}
