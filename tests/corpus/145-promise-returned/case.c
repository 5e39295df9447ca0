/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct ops { int (*get)(long n); };
extern const struct ops *registered;

#ifdef NEW
static int get(long n) { return take(n, 5); }
static const struct ops fixed = { get };
static long spare[4];
/* its only caller is in the patch and looks at it */
static noinline long *own(long n) { return take(n, 2) ? &spare[n & 3] : &spare[0]; }
#endif

const struct ops *choose(long n)
{
#ifdef NEW
	if (n > 8)
		return &fixed;
#endif
	return take(n, 3) ? registered : (void *)0;
}

long count(long n)
{
#ifdef NEW
	n += *own(n);
#endif
	return take(n, 4) + 1;
}
