/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define aligned64 __attribute__((aligned(64))) in(".data..aligned")

long first[5] aligned64 = { 1 };
long second[3] aligned64 = { 2 };
static char small;
static struct {} key;
static int next;

/* Names the end of one and the beginning of the other, with padding between. */
long same(long n)
{
	for (long *p = first; p < first + 5; p++)
		n += *p * n;
	for (long *p = second; p < second + 3; p++)
		n += *p * n;
	small = n;
	next = n;
	return take((long)&key, n) + 1;
}

long f(long n)
{
	for (long *p = first; p < first + 5; p++)
		n += *p * n;
	take((long)second, n);
#ifdef NEW
	n++;
#endif
	return take((long)&key, n) + next + small;
}
