/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* A lock of one function that the fix needs in two. */
struct lock { long word; };
#ifdef NEW
static struct lock both;
#endif

long f(long n)
{
#ifdef NEW
	return take((long)&both, n) + 1;
#else
	static struct lock own;

	return take((long)&own, n) + 1;
#endif
}

long g(long n)
{
#ifdef NEW
	take((long)&both, 0);
#endif
	return take(n, n) + 2;
}

/* The same name, of the file now. */
#ifdef NEW
static long done;
#endif
long once(long n)
{
#ifndef NEW
	static long done;
#endif
	if (!done)
		take(n, 3);
	done = 1;
#ifdef NEW
	n++;
#endif
	return n;
}
