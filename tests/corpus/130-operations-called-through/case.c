/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int one(long n) { return take(n, 1) + 1; }
static int two(long n) { return take(n, 2) + 1; }
#ifdef NEW
static int three(long n) { return take(n, 3) + 1; }
#define SECOND three
#else
#define SECOND two
#endif
struct ops { int (*call[2])(long); int (*other)(long); };
static const struct ops ops = { { one, SECOND }, two };
int run(long n) { return handle((void *)n) + ops.call[n & 1](n); }
int last(long n) { return ops.call[n & 1](n); }
int same(long n) { return take(n, 5) + 1; }
