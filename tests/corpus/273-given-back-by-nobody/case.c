/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct work { void *links[2]; void (*func)(struct work *); };
int queue_work_on(int cpu, void *queue, struct work *work);
extern void *queue;

#ifdef NEW
static void late(struct work *work) { handle(work); }
static struct work work = { { &work, &work }, late };
asm(".pushsection .lpbuild.marks, \"\", @progbits\n.asciz \"given-back work\"\n.popsection");
#endif

int queue_it(long n)
{
#ifdef NEW
	queue_work_on(1, queue, &work);
#endif
	return take(n, 1) + 1;
}
