/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

void *memcpy(void *to, const void *from, unsigned long n);
struct ops { int (*get)(long n); long more[40]; };
int fill(struct ops *ops);
int use(const struct ops *ops);

#ifdef NEW
static int get(long n) { return take(n, 9) + 1; }
#else
int get(long n);
#endif
static const struct ops template = { get };

/* a local object that holds the address is copied to one of the kernel */
void local_out(struct ops *to, long n)
{
	take(n, 1);
#ifdef NEW
	struct ops ops;
	fill(&ops);
	ops.get = get;
	*to = ops;
#endif
}

/* the same with a function */
void local_by_call(struct ops *to, long n)
{
	take(n, 2);
#ifdef NEW
	struct ops ops;
	fill(&ops);
	ops.get = get;
	memcpy(to + 1, &ops, n);
#endif
}

/* a constant that holds it */
void constant_out(struct ops *to) { *to = template; }
void constant_by_call(struct ops *to, long n) { memcpy(to, &template, n); }

/* for the function itself */
int for_itself(long n)
{
	struct ops ops = template;
	ops.more[3] = n;
	return use(&ops) + 1;
}
