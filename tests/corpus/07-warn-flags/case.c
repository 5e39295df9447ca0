/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
#ifdef NEW
	if (unlikely(n < 0)) WARN_HERE(7, 0x903);
#else
	if (unlikely(n < 0)) WARN_HERE(7, 0x901);
#endif
	return handle((void *)n) + 1;
}
