/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct work { void *links[2]; void (*func)(struct work *); };
int queue_work_on(int cpu, void *queue, struct work *work);
int cancel_work_sync(struct work *work);
extern void *queue;

#ifdef NEW
#define MARK(text) asm(".pushsection .lpbuild.marks, \"\", @progbits\n.asciz \"" text "\"\n.popsection")
static void late(struct work *work) { handle(work); }
static struct work work = { { &work, &work }, late };
static struct work forgotten = { { &forgotten, &forgotten }, late };
static used void take_back(void) { cancel_work_sync(&work); }
MARK("post-revert take_back");
MARK("given-back work");
#endif

int queue_it(long n)
{
#ifdef NEW
	queue_work_on(1, queue, &work);
#endif
	return take(n, 1) + 1;
}

int queue_other(long n)
{
#ifdef NEW
	queue_work_on(1, queue, &forgotten);
#endif
	return take(n, 2) + 1;
}
