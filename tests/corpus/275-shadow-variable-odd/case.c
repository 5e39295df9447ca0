/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
struct lpb_shadow { void *values; unsigned int size, layout; char name[48]; };
void *lpb_shadow_get(const void *obj, struct lpb_shadow *shadow);
/* Of a header to come. */
static struct lpb_shadow lpb_shadow_of_hits = { .size = 8, .layout = 2, .name = "hits" };
#endif

int check(long *n)
{
#ifdef NEW
	long *hits = lpb_shadow_get(n, &lpb_shadow_of_hits);
	barrier();
	if (hits && *hits > 8) return -1;
#endif
	return handle(n) + 1;
}

int other(long *n)
{
#ifdef NEW
	void *(*volatile get)(const void *obj, struct lpb_shadow *shadow) = lpb_shadow_get;
	if (get((void *)0, (void *)0)) return -1;
#endif
	return handle(n) + 2;
}
