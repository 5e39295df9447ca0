/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* Entries of a list under a name of their own, which code walks from one end to the other. */
struct rate { int id, limit; };
#define RATE(name, limit) static const struct rate name used in("rates") = { __LINE__, limit }
RATE(slow, 10);
#ifdef NEW
RATE(fast, 2000);
#else
RATE(fast, 1000);
#endif
extern const struct rate __start_rates[], __stop_rates[];

/* The same, writable. */
struct counter { const char *name; long start; };
static struct counter hits used in(".counters") = { "hits", 1 };
#ifdef NEW
static struct counter misses used in(".counters") = { "misses", 3 };
#else
static struct counter misses used in(".counters") = { "misses", 2 };
#endif

/* One that code also knows by its name. */
#ifdef NEW
static const int level used in("levels") = 5;
#else
static const int level used in("levels") = 4;
#endif

int sum(void)
{
	int all = 0;

	for (const struct rate *r = __start_rates; r < __stop_rates; r++)
		all += r->limit;
	return take(all, *(volatile const int *)&level) + 1;
}
