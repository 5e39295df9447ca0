/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int report(const char *func, unsigned int line, long n);

#ifdef NEW
#define LEVEL 101
#define LINE_AND(x) (__LINE__ + x)
#line 103
#else
#define LEVEL 100
#define LINE_AND(x) (__LINE__ + 2 * x)
#line 100
#endif
int level(long n)
{
	return report(__func__, LEVEL, n) + 1;
}

/* Not the line: the tables say so. */
int computed(long n)
{
	return report(__func__, LINE_AND(1000), n) + 1;
}

/* The line, and another change. */
int both(long n)
{
	return report(__func__, __LINE__, n) + (LEVEL == 101 ? 2 : 1);
}

int only_line(long n)
{
	return report(__func__, __LINE__, n) + 5;
}
