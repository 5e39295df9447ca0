/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct ops { int (*probe)(long n); };
extern struct ops *registered;

static int in(".init.data") at_boot = 3;
static const char in(".init.rodata") name[] = "boot";
int noinline in(".init.text") setup(long n) { return take(n, at_boot++) + show(name); }
int noinline in(".exit.text") leave(long n) { return take(n, 9) + 1; }
int setup_elsewhere(long n);

int reads(long n)
{
#ifdef NEW
	n += at_boot;
#endif
	return take(n, 1) + 1;
}
int calls(long n)
{
#ifdef NEW
	n += setup(n);
#endif
	return take(n, 2) + 1;
}
int leaves(long n)
{
#ifdef NEW
	n += leave(n);
#endif
	return take(n, 3) + 1;
}
int prints(long n)
{
#ifdef NEW
	show(name + n);
#endif
	return take(n, 4) + 1;
}
void stores(void)
{
#ifdef NEW
	registered->probe = setup;
#else
	registered->probe = 0;
#endif
}
#ifdef NEW
static const struct ops boot_ops = { setup };
#endif
int through_table(long n)
{
#ifdef NEW
	take((long)&boot_ops, 5);
#endif
	return take(n, 6) + 1;
}
int across(long n)
{
#ifdef NEW
	n += setup_elsewhere(n);
#endif
	return take(n, 7) + 1;
}
