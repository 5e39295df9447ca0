/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
	take(n, 1);
	asm volatile(".byte 0x0f, 0x04");
#ifdef NEW
	take(n, 2);
#endif
	return take(n, 3) + 1;
}
