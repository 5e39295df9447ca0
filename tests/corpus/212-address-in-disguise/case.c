/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct two { long a; void *p; };
extern u64 place, cookie;

#ifdef NEW
static void other(void) { take(1, 2); }
static long page[512] __attribute__((__aligned__(4096)));
#endif

/* mangled */
void mangle(long n)
{
	take(n, 1);
#ifdef NEW
	place = (u64)other ^ cookie;
#endif
}

/* the number of its page */
void number(long n)
{
	take(n, 2);
#ifdef NEW
	page[n & 7]++;
	place = (u64)page >> 12;
#endif
}

/* a place in the function itself */
void label(long n)
{
	take(n, 3);
#ifdef NEW
	place = ({ __label__ here; here: (u64)&&here; });
#endif
	take(n, 4);
}

/* the second word of a result */
struct two pair(long n)
{
	struct two two = { take(n, 5), 0 };
#ifdef NEW
	two.p = other;
#endif
	return two;
}
