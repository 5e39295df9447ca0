/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct entry { long key, value; };
#ifdef NEW
#define OTHER 7
#else
#define OTHER 6
#endif
static const struct entry table[] = { { 1, 2 }, { 3, OTHER }, { 5, 6 }, { 0, 0 } };

/* until the entry that ends it: what is left in a register is no result */
int find(long key)
{
	for (const struct entry *e = table; e->key; e++)
		if (e->key == key)
			return e->value;
	return -1;
}

/* a table of functions is handed out entry by entry */
struct hooks { int (*hook[8])(long); };
#ifdef NEW
static int one(long n) { return take(n, 1) + 1; }
static int two(long n) { return take(n, 2) + 1; }
static int (*const all[])(long) = { two, one, two, one };
#endif
long hand_out(struct hooks *h, long n)
{
#ifdef NEW
	for (long i = 0; i < n; i++)
		h->hook[n - i] = all[i];
#endif
	return take(n, 3) + 2;
}

/* and called */
long call_all(long n)
{
	long sum = take(n, 4);
#ifdef NEW
	for (long i = 0; i < (n & 3); i++)
		sum += all[i](sum);
#endif
	return sum;
}
