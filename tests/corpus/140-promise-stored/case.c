/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct work { void *links[2]; void (*func)(struct work *); };
struct ops { int (*get)(long n); };
struct object { struct work work; const struct ops *ops; struct object *next, **back; };

#ifdef NEW
static void late(struct work *work) { handle(work); }
static int get(long n) { return take(n, 5); }
static const struct ops fixed = { get };
static struct object head;
#endif

/* INIT_WORK on an object of the kernel */
int arm(struct object *o)
{
#ifdef NEW
	o->work.func = late;
#endif
	return handle(o) + 1;
}

/* through a register that may hold either */
int choose(struct object *o, const struct ops *kept)
{
#ifdef NEW
	if (!kept->get)
		kept = &fixed;
#endif
	o->ops = kept;
	return handle(o) + 2;
}

/* list_add */
int enlist(struct object *o)
{
#ifdef NEW
	head.next = o->next;
	o->next = &head;
#endif
	return handle(o) + 3;
}

/* an exchange, out of line */
static noinline __attribute__((__noclone__)) void swap_in(const struct ops **slot, const struct ops *ops)
{
	asm volatile("xchg %0, %1" : "+r" (ops), "+m" (*slot));
	take((long)ops, 1);
}

int exchange(struct object *o)
{
	swap_in(&o->ops, (void *)0);
#ifdef NEW
	swap_in(&o->ops, &fixed);
#endif
	return handle(o) + 4;
}
