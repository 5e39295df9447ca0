/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct work { void *links[2]; void (*func)(struct work *); };
struct entry { void *task; int (*wake)(struct entry *); };
void run_now(struct entry *e);
int sort_by(int (*cmp)(long, long));

#ifdef NEW
/* a hook of its own, and a list that only the patch knows */
static int (*volatile hook)(long);
static int first(long n) { return take(n, 5); }
static struct work own;
static void nobody(struct work *w) { handle(w); }
static int wake(struct entry *e) { return handle(e); }
#endif

int hooked(long n)
{
#ifdef NEW
	hook = first;
	if (hook(n))
		return -1;
#endif
	return take(n, 1) + 1;
}

int kept(long n)
{
#ifdef NEW
	own.func = nobody;
	own.links[0] = &own;
	barrier();
	if (own.links[1])
		own.func((struct work *)n);
#endif
	return take(n, 2) + 1;
}

/* an object on the stack, for a function that returns when it is done */
int waits(long n)
{
#ifdef NEW
	struct entry e = { (void *)n, wake };

	run_now(&e);
#endif
	return take(n, 3) + 1;
}

/* the address of a replaced function stays the old one */
static noinline int compare(long a, long b)
{
#ifdef NEW
	if (a == 7)
		return 0;
#endif
	return take(a, b) + 1;
}

extern int (*slot)(long, long);
int registers(long n)
{
	sort_by(compare);
#ifdef NEW
	slot = compare;
#endif
	return take(n, 4) + 1;
}
