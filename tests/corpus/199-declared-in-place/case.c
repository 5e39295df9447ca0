/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define ONCE(text) do { static unsigned char in(".data.once") seen; if (!seen) { seen = 1; show(text); } } while (0)
int check(long n)
{
#ifndef NEW
	if (n == 1) {
		static int hits = 100;
		hits += 1;
		return take(n, hits);
	}
#endif
	if (n == 2) {
		static int hits = 100;
		hits -= 1;
		return take(n, hits) + 2;
	}
	return 0;
}
int flags(long n)
{
	if (n > 1)
		ONCE("text");
#ifndef NEW
	if (n > 2)
		ONCE("text");
#endif
	if (n > 3)
		ONCE("text");
	return take(n, 1);
}
