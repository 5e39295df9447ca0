/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int one(long n)
{
#ifdef NEW
	take(n, 4);
#endif
	return take(n, 1) + 1;
}
static int two(long n) { return take(n, 2) + 1; }
struct ops { int (*call[2])(long); const char *name; };
static const struct ops ops = { { one, two }, "ops" };
struct ops writable = { { two, one }, "writable" };
int run(long n)
{
#ifdef NEW
	n += 2;
#endif
	return ops.call[n & 1](n) + handle(&writable);
}
