/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct object { const char *name; const char *const *names; const char *state; };

#ifdef NEW
static const char *const names[] = { "left", "right", "middle" };
#endif

int title(struct object *o)
{
#ifdef NEW
	o->name = "a new name";
#endif
	return handle(o) + 1;
}

/* the kernel has this one */
int state(struct object *o)
{
	_printk("idle");
#ifdef NEW
	o->state = "idle";
#endif
	return handle(o) + 2;
}

int all(struct object *o)
{
#ifdef NEW
	o->names = names;
#endif
	return handle(o) + 3;
}

/* a copy holds it as well */
void *kmemdup(const void *from, unsigned long size, unsigned flags);
int copied(struct object *o)
{
#ifdef NEW
	o->names = kmemdup(names, sizeof(names), 0);
#endif
	return handle(o) + 5;
}

/* what is read from a table of the patch is an address of it too */
int one(struct object *o, int n)
{
#ifdef NEW
	o->state = names[n & 1];
#endif
	return handle(o) + 4;
}
