/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int one(long n) { return take(n, 1) + 1; }
#ifdef NEW
static int added(long n) { return take(n, 2) + 1; }
#define SECOND added
#else
#define SECOND one
#endif
struct ops { int (*call[2])(long); };
static const struct ops ops = { { one, SECOND } };
int run(long n) { return handle((void *)&ops) + ops.call[n & 1](n); }
