/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

extern int maybe(long n) weak;
extern int level;
extern char kallsyms_names[] weak;
int other_name(long n) __attribute__((alias("named")));
int noinline named(long n) { return take(n, 1) + level; }
int check(long n)
{
#if defined(NEW)
	take(n, 4);
#endif
	level++;
	if (maybe)
		n += maybe(n);
	return other_name(n) + named(n + 1) + handle(kallsyms_names);
}
