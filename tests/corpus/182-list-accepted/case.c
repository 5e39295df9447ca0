/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct rate { int id, limit; };
#define RATE(name, limit) static const struct rate name used in("rates") = { 1, limit }
RATE(slow, 10);
#ifdef NEW
RATE(fast, 2000);
RATE(faster, 3000);
#else
RATE(fast, 1000);
#endif
extern const struct rate __start_rates[], __stop_rates[];
int sum(long n)
{
	long all = 0;

	for (const struct rate *r = __start_rates; r < __stop_rates; r++)
		all += r->limit;
#ifdef NEW
	all += n;
#endif
	return take(all, n) + 1;
}
