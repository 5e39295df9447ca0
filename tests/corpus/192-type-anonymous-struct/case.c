/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define EITHER(old, new) new
#else
#define EITHER(old, new) old
#endif
#define SWAPPED EITHER(int a; int b, int b; int a)

static struct { SWAPPED; } nohz;
long variable(int n) { nohz.a += n; return take(nohz.b, nohz.a) + 1; }

static struct { int id; union { EITHER(int state, unsigned int flags); }; } slots[4];
long array(long n) { slots[n].id++; return take(slots[n].EITHER(state, flags) / 2, 2) + 1; }

long local(int n)
{
	static struct { SWAPPED; } last;
	last.a += n;
	return take(last.b, last.a) + 1;
}

extern struct { SWAPPED; } *shared;
long pointer(void) { return take(shared->a, 4) + 1; }

struct owner { long id; struct { SWAPPED; } *part; };
long member(struct owner *o) { return take(o->part->a, 5) + 1; }

/* The same on both sides, and one that is on the stack of the function alone. */
static struct { int a, b; } same;
int fill(void *p);
long unchanged(long n)
{
	struct { SWAPPED; } own;
	same.a += n;
	return take(fill(&own), own.a) + take(same.b, EITHER(6, 7));
}
