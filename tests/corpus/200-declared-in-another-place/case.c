/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* The first block goes, and the second moves to its lines. */
int shorter(long n)
{
#ifndef NEW
	if (n == 1) {
		static int hits = 100;
		hits += 1;
		return take(n, hits);
	}
	if (n == 2) {
		static int hits = 100;
		hits -= 1;
		return take(n, hits) + 2;
	}
	return 0;
}
#else
#line 8
	if (n == 22) {
		static int hits = 100;
		hits -= 1;
		return take(n, hits) + 2;
	}
	return 0;
}
#endif

/* The lines are as many, and one variable is at a line where none was. */
#line 100
int moved(long n)
{
#ifndef NEW
	if (n == 1) {
		static int hits = 100;
		hits += 1;
		return take(n, hits);
	}
	if (n == 2) {
		static int hits = 100;
		hits -= 1;
		return take(n, hits) + 2;
	}
	return 0;
}
#else
#line 104
	if (n == 22) {
		static int hits = 100;
		hits -= 1;
		return take(n, hits) + 2;
	}
#line 111
	if (n == 5) {
		static int hits = 100;
		hits *= 3;
		return take(n, hits) + 7;
	}
#line 113
	return 0;
}
#endif
