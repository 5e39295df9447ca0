/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define MORE(n) long more[n];
#else
#define MORE(n)
#endif

struct cast { int first; MORE(3) long last; };
long by_cast(void *p) { return take(((struct cast *)p)->last, 1) + 1; }

struct around { long first[5]; MORE(7) struct inner { long n; } inner; };
long by_container(struct inner *i)
{
	return take(((struct around *)((char *)i - __builtin_offsetof(struct around, inner)))->first[0], 2) + 1;
}

struct global { long first; MORE(1) long last; };
extern struct global *head;
long by_global(void) { return take(head->last, 3) + 1; }

struct result { long first; MORE(1) long last; };
struct result *find(long n);
long by_result(long n) { return take(find(n)->last, 4) + 1; }
