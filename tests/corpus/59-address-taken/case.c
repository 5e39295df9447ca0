/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static noinline int worker(long n)
{
#ifdef NEW
	take(n, 8);
#endif
	return take(n, 1) + 1;
}
int start(long n)
{
#ifdef NEW
	take(n, 7);
#endif
	handle(worker);
	return worker(n) + 1;
}
int bystander(long n) { handle(worker); return worker(n) + 3; }
