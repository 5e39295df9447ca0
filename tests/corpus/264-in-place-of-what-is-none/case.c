/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int variable =
#ifdef NEW
	2;
#else
	1;
#endif
const int equal[3] = { 1, 2, 3 };
const int grows[] = { 1, 2,
#ifdef NEW
	3
#endif
};
#ifdef NEW
const int added[2] = { 4, 5 };
#endif
int run(long n)
{
#ifdef NEW
	n += added[n & 1];
#endif
	return take(n, variable + equal[n & 1] + grows[n & 1]) + 1;
}
