/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

void *memcpy(void *to, const void *from, unsigned long n);
int seq_printf(void *m, const char *format, ...);
int strcmp(const char *a, const char *b);
#ifdef NEW
#define N 9
#else
#define N 4
#endif
#define alone __attribute__((__noipa__))
struct row { long key; int (*call)(long); };
int one(long n);
int two(long n);

static const int limits[4] = { 1, 2, 3, N };
int indexed(unsigned n) { return take(n, limits[n & 3]) + 1; }

static const struct row rows[4] = { { 1, one }, { 2, two }, { 3, one }, { N, two } };
int found(long key)
{
	for (const struct row *r = rows; r < rows + 4; r++)
		if (r->key == key)
			return r->call(key);
	return -2;
}
int counted(long n)
{
	int sum = 0;
	for (const struct row *r = rows; r != rows + 4; r++)
		sum += take(r->key, n);
	return sum;
}

static const long initial[9] = { 1, 2, 3, 4, 5, 6, 7, 8, N };
void copied(void *to) { memcpy(to, initial, sizeof(initial)); take(0, 1); }

static const char message[] = { 'n', ' ', '0' + N, '\n', 0 };
int printed(long n) { return _printk(message, n) + 1; }
int shown(void *m, long n) { return seq_printf(m, "%ld %s", n, message) + 1; }
int same_text(const char *s) { return strcmp(s, message) ? 1 : 2; }

static const long sums[3] = { 1, 2, N };
static alone long sum(long n, const long *v) { return take(n, v[0] + v[1] * v[2]); }
long helped(long n) { return sum(n, sums) + 1; }

static const struct row picked[3] = { { 1, one }, { 2, two }, { N, one } };
static alone const struct row *pick(long n) { take(n, 8); return &picked[n & 1]; }
long chosen(long n) { return pick(n)->key + 1; }

static const char *const names[3] = { "one", "two", N == 9 ? "nine" : "four" };
int named(unsigned n) { return show(names[n % 3]) + 1; }
