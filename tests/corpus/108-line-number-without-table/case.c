/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int report(const char *func, unsigned int line, long n);

#ifdef NEW
#line 103
#else
#line 100
#endif
int by_function(long n)
{
	if (n > 7)
		return report(__func__, __LINE__, n) + 1;
	return take(n, 1) + 1;
}

int other(long n)
{
	return take(n, 1) + 2;
}
