/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* All its callers are here, and are replaced. */
#ifdef NEW
static noinline long local(long n, char *text) { return take(n, (long)text) + 1; }
#else
static noinline long local(long n) { return take(n, 5) + 1; }
#endif

/* The other object calls it, and is replaced. */
#ifdef NEW
noinline int shared(long n, long more) { return take(n, more) + 2; }
long f(long n, char *text) { return local(n, text + 1) + 1; }
#else
noinline int shared(long n) { return take(n, 6) + 2; }
long f(long n, char *text) { return local(n) + 1; }
#endif

/* Another name for a parameter is no other parameter. */
#ifdef NEW
long renamed(long count) { return take(count, 8) + 3; }
#else
long renamed(long n) { return take(n, 7) + 3; }
#endif
