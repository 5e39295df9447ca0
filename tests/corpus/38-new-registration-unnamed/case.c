/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct point { const char *name; int key; };
struct point in("__tracepoints") point_a = { "a", 0 };
#define REGISTER(x) asm(".pushsection __tracepoints_ptrs, \"a\"\n.balign 4\n.long " #x " - .\n.popsection")
REGISTER(point_a);
#ifdef NEW
struct point in("__tracepoints") point_b = { "b", 0 };
REGISTER(point_b);
#endif
int check(long n)
{
	take(n, point_a.key);
#ifdef NEW
	take(n, point_b.key);
#endif
	return take(n, 1) + 1;
}
