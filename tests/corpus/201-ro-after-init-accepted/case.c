/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int shared = 5;
static const int limit = 3;
static int step = 4;
#else
int in(".data..ro_after_init") shared = 5;
static int limit = 3;
static const int step = 4;
#endif
int check(long n)
{
	return take(n, shared) + *(volatile const int *)&limit + *(volatile const int *)&step;
}
int raise(long n)
{
#ifndef NEW
	limit += n;
#else
	step += n;
#endif
	return take(n, 1) + 2;
}
