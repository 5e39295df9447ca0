/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct list { struct list *next, *prev; };
struct work { struct list entry; void (*func)(struct work *); };
struct notifier { int (*call)(struct notifier *, long); struct notifier *next; };
struct timer { struct list entry; long expires; void (*func)(struct timer *); };
struct device { const char *name; struct work *work; };

int queue_work_on(int cpu, void *queue, struct work *work);
int chain_insert(struct notifier **chain, struct notifier *n);
void timer_go(struct timer *t, long expires);
int device_start(struct device *d);
extern void *queue;
extern struct notifier *chain;

#ifdef NEW
/* DECLARE_WORK */
static void late(struct work *work) { handle(work); }
static struct work work = { { &work.entry, &work.entry }, late };
/* a notifier, to a function that no table knows */
static int event(struct notifier *n, long what) { return take(what, 6); }
static struct notifier notifier = { event };
/* a function put into a static timer, which is given to a function that no table knows */
static void tick(struct timer *t) { handle(t); }
static struct timer timer;
/* held by what is held */
static void later(struct work *work) { handle(work); }
static struct work second = { { &second.entry, &second.entry }, later };
static struct device device = { "device", &second };
#endif

int queue_it(long n)
{
#ifdef NEW
	queue_work_on(1, queue, &work);
#endif
	return take(n, 1) + 1;
}

int listen(long n)
{
#ifdef NEW
	if (chain_insert(&chain, &notifier))
		return -1;
#endif
	return take(n, 2) + 1;
}

int start(long n)
{
#ifdef NEW
	timer.func = tick;
	timer_go(&timer, n + 100);
#endif
	return take(n, 3) + 1;
}

int probe(long n)
{
#ifdef NEW
	device_start(&device);
#endif
	return take(n, 4) + 1;
}
