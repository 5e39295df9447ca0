/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct params { long size; long (*hash)(long); };
extern int rhashtable_init(void *table, const struct params *p);
extern int sort_with(void *table, const struct params *p);
#ifdef NEW
static noinline long hash_a(long n) { return n * 3; }
static noinline long hash_b(long n) { return n * 5; }
#endif

/* What it is given is copied. */
int f(void *table)
{
	struct params p = { 8 };

#ifdef NEW
	p.hash = hash_a;
#endif
	return rhashtable_init(table, &p) + 1;
}

/* Whether this is, nobody knows. */
int g(void *table)
{
	struct params p = { 8 };

#ifdef NEW
	p.hash = hash_b;
#endif
	return sort_with(table, &p) + 1;
}
