/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

extern int middle, beginning;
#ifdef NEW
extern int added;
#endif
int check(long n)
{
#ifdef NEW
	take(added, 3);
#endif
	return take(beginning, middle) + 1;
}
