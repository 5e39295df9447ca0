/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define noipa __attribute__((__noipa__))
#ifdef NEW
#define OTHER 7
#else
#define OTHER 6
#endif
struct pair { long key, value; };
extern const struct pair *kept;
static const struct pair in(".rodata.walked") walked[] = { { 1, 2 }, { 3, 4 }, { 5, OTHER }, { 8, 9 } };
static const struct pair in(".rodata.stored") stored[] = { { 1, 3 }, { 3, 5 }, { 5, OTHER }, { 8, 8 } };
static const struct pair in(".rodata.handed") handed[] = { { 1, 4 }, { 3, 6 }, { 5, OTHER }, { 8, 7 } };

/* read from the end on */
long walk(long key)
{
	for (const struct pair *p = walked + 4; p > walked;)
		if ((--p)->key == key)
			take(p->value, 1);
	return 0;
}

/* and kept where it fits */
long store(long key)
{
	for (const struct pair *p = stored + 4; p > stored;)
		if ((--p)->key == key) {
			kept = p;
			return 1;
		}
	return 0;
}

/* by a function that gets no more than the end */
static noipa void keep(const struct pair *end, long n) { kept = end - n; }
long hand(long n)
{
	keep(handed + 4, n);
	return handed[n & 3].value;
}
