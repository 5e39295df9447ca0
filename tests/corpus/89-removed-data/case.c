/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifndef NEW
int threshold = 3;
#endif
int limit = 5;

int over(int value)
{
#ifdef NEW
	return value > limit;
#else
	return value > limit + threshold;
#endif
}
