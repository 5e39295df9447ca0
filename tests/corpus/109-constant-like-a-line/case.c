/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int report(const char *func, unsigned int line, long n);
int begin(long n, unsigned int line);
int limit(long n, unsigned int most);
extern int threshold;
/* Every constant is the number of its own line, and differs as the lines do. */
#ifdef NEW
#define OWN(old) (old + 1)
#line 101
#else
#define OWN(old) old
#line 100
#endif
int stored(long n) { threshold = OWN(100); return take(n, 1) + 1; }
int compared(long n) { return n > OWN(101) ? take(n, 1) + 1 : 0; }
int added(long n) { return take(n, n + OWN(102)) + 1; }
int returned(long n) { return take(n, 1) ? OWN(103) : 0; }
int passed(long n) { return limit(n, OWN(104)) + 1; }
int passed_elsewhere(long n) { return limit(n, 7) + 2; }
int passed_once(long n) { return handle((void *)n) + begin(n, OWN(106)); }
