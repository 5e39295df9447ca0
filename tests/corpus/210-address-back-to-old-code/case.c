/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define noipa __attribute__((__noipa__))
void sleep_a_while(long n);

struct pair { long key, value; };
#ifdef NEW
#define OTHER 7
#else
#define OTHER 6
#endif
static const struct pair slow_table[] = { { 1, 2 }, { 3, 4 }, { 5, OTHER }, { 8, 9 }, { 10, 11 } };
static const struct pair fast_table[] = { { 2, 2 }, { 4, 4 }, { 6, OTHER }, { 9, 9 }, { 11, 11 } };

/* its caller sleeps before it reads: by then nobody of the patch is on the stack */
static noipa const struct pair *slow_find(long key)
{
	for (unsigned i = 0; i < 5; i++)
		if (slow_table[i].key == key)
			return &slow_table[i];
	return 0;
}
long slow(long key)
{
	const struct pair *p = slow_find(key);
	sleep_a_while(key);
	return p ? p->value : -1;
}

/* its caller reads at once */
static noipa const struct pair *fast_find(long key)
{
	for (unsigned i = 0; i < 5; i++)
		if (fast_table[i].key == key)
			return &fast_table[i];
	return 0;
}
long fast(long key)
{
	const struct pair *p = fast_find(key);
	return p ? p->value : -1;
}

/* through two functions that stay */
static long spare_old[8] = { 1 };
#ifdef NEW
static long spare_new[8];
#endif
static noipa long *buffer(long n)
{
	take(n, 1);
#ifdef NEW
	if (n > 8)
		return spare_new;
#endif
	return spare_old;
}
static noipa long *level(long n)
{
	long *p = buffer(n);
	return p + 1;
}
long deep(long n)
{
	long *p = level(n);
	sleep_a_while(n);
	return p[n & 3]++;
}
