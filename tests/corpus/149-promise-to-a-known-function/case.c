/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct head { struct head *next; void (*func)(struct head *); };
struct object { struct head rcu; long timer[5]; };
struct ops { int (*open)(void *); };
void call_rcu(struct head *head, void (*func)(struct head *));
void init_timer_key(void *timer, void (*func)(void *), unsigned flags, const char *name, void *key);
void *proc_create(const char *name, unsigned short mode, void *parent, const struct ops *ops);
int register_thing_notifier(const struct ops *ops);
int single_open(void *file, int (*show)(void *), void *data);

#ifdef NEW
static void reclaim(struct head *head) { handle(head); }
static void tick(void *timer) { handle(timer); }
static int opened(void *file) { return handle(file); }
static const struct ops ops = { opened };
static int shown(void *m) { return handle(m) + 1; }
#endif

int release(struct object *o)
{
#ifdef NEW
	call_rcu(&o->rcu, reclaim);
#endif
	return handle(o) + 1;
}

int setup(struct object *o)
{
#ifdef NEW
	init_timer_key(o->timer, tick, 0, (void *)0, (void *)0);
#endif
	return handle(o) + 2;
}

int publish(long n)
{
#ifdef NEW
	if (!proc_create("new file", 0444, (void *)0, &ops))
		return -12;
#endif
	return take(n, 1) + 3;
}

int hear(long n)
{
#ifdef NEW
	register_thing_notifier(&ops);
#endif
	return take(n, 2) + 4;
}

/* a tail call */
int open(void *file)
{
	if (handle(file))
		return -1;
#ifdef NEW
	return single_open(file, shown, (void *)0);
#else
	return take(1, 2);
#endif
}
