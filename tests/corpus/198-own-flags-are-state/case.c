/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define ONCE(text) do { static unsigned char in(".data.once") seen; if (!seen) { seen = 1; show(text); } } while (0)
#define DO_ONCE(f) do { static unsigned char in(".data.once") ___done; if (!___done) { ___done = 1; take(f, 7); } } while (0)
int check(long n)
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
int secret(long n)
{
	if (n > 1)
		DO_ONCE(1);
#ifndef NEW
	if (n > 2)
		DO_ONCE(1);
#endif
	if (n > 3)
		DO_ONCE(1);
	return take(n, 2);
}
