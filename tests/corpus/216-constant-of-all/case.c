/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define OTHER 5
#else
#define OTHER 4
#endif
struct ops { int (*get)(long); long n; };
int get(long n);
/* other objects may read it as well */
const long limits[4] = { 1, 2, 3, OTHER };
/* and have its address */
const struct ops shared = { get, OTHER };
extern const struct ops *kept;
/* a variable leads to it */
static const struct ops led_to = { get, OTHER + 10 };
const struct ops *way = &led_to;

long limit(long n) { return take(limits[n & 3], 1); }
void keep(long n) { kept = &shared; take(n, 2); }
long current(void) { return way->n; }
long direct(long n) { return take(led_to.n + n, 3); }
