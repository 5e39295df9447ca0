/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* Only the new build has it. */
#ifdef NEW
struct request { long a, b; };
noinline long helper(struct request *r) { return take(r->a, r->b) + 2; }
#endif

/* Another word for the same. */
#ifdef NEW
typedef unsigned int count_t;
#else
typedef u32 count_t;
#endif
struct counted { const count_t n; char *text; };

long f(struct counted *c)
{
#ifdef NEW
	struct request r = { c->n, 3 };

	return helper(&r);
#else
	return take(c->n, 2) + 1;
#endif
}
