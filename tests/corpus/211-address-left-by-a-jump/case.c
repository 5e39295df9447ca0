/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define noipa __attribute__((__noipa__))
void sleep_a_while(long n);
char *kstrdup(const char *text, unsigned flags);

#ifdef NEW
#define TEXT(n) "a brand-new text " n
#define OTHER 4
#else
#define TEXT(n) "the old text here " n
#define OTHER 3
#endif

/* allocates, which sleeps, and copies then */
char *copied(long n) { return kstrdup(TEXT("1"), n); }

/* prints: nobody sleeps */
int printed(long n) { return _printk(TEXT("2"), n); }

/* an old function that sleeps between two reads, and one that does not */
static const long slow_table[16] = { 1, 2, OTHER, 4 };
static const long fast_table[16] = { 2, 3, OTHER, 5 };
static noipa long slow_sum(const long *p, long n)
{
	long sum = 0;
	while (n-- > 0) {
		sum += *p++;
		sleep_a_while(sum);
	}
	return sum;
}
static noipa long fast_sum(const long *p, long n)
{
	long sum = 0;
	while (n-- > 0)
		sum += *p++;
	return sum;
}
long slow(long n) { return slow_sum(slow_table, take(n, 1)); }
long fast(long n) { return fast_sum(fast_table, take(n, 2)); }

/* the same with a call: the caller waits */
long waits(long n) { return slow_sum(slow_table, take(n, 3)) + 1; }

/* a new function, for an old one that calls it after it slept */
static noipa int run(int (*f)(long), long n)
{
	sleep_a_while(n);
	return f(n) + 1;
}
#ifdef NEW
static int late(long n) { return take(n, 4) + 2; }
#else
int late(long n);
#endif
int go(long n) { return run(late, take(n, 5)); }
