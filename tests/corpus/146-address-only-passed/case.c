/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct list { struct list *next, *prev; };
struct mutex { long owner; struct list waiters; };
struct key { };
void sort(void *base, long n, long size, int (*cmp)(const void *, const void *), void *swap);
void on_each_cpu(void (*f)(void *), void *arg, int wait);
void mutex_lock(struct mutex *m);
void mutex_unlock(struct mutex *m);
void init_lock(void *lock, struct key *key);
int match_string(const char *const *list, long n, const char *text);

#ifdef NEW
static int cmp(const void *a, const void *b) { return *(long *)a < *(long *)b; }
static void each(void *arg) { handle(arg); }
static struct mutex lock = { 0, { &lock.waiters, &lock.waiters } };
static struct key key;
static const char *const words[] = { "first", "second" };
#endif

int order(long *base, long n)
{
#ifdef NEW
	sort(base, n, sizeof(*base), cmp, (void *)0);
	on_each_cpu(each, base, 1);
#endif
	return take(n, 1) + 1;
}

int locked(long n)
{
#ifdef NEW
	mutex_lock(&lock);
	n = take(n, 7);
	mutex_unlock(&lock);
#endif
	return take(n, 2) + 1;
}

int quiet(long n)
{
#ifdef NEW
	_printk("new text %s\n", __func__);
	init_lock(&n, &key);
	n += match_string(words, 2, (char *)n);
#endif
	return take(n, 3) + 1;
}
