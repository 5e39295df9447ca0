/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"
#include "helper.h"

long once(long n) { barrier(); return helper(n) + 1; }

/* Only this file has it. */
static inline __attribute__((__always_inline__)) long own(long n)
{
#ifdef NEW
	return take(n, 5) + 3;
#else
	return take(n, 4) + 3;
#endif
}
long of_file(long n) { barrier(); return own(n) + 1; }

/* The argument changed, not the function. */
struct two { long a, b; };
#ifdef NEW
long constant(long n) { return scale(n, 9) + 1; }
long member(struct two *t) { return scale(t->b, 3) + 1; }
#else
long constant(long n) { return scale(n, 8) + 1; }
long member(struct two *t) { return scale(t->a, 3) + 1; }
#endif
