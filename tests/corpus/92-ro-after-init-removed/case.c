/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
static int limit = 3;
static int level = 4;
int shared = 5;
int in(".data..ro_after_init") sealed = 6;
static int passed = 7;
#else
static int in(".data..ro_after_init") limit = 3;
static int in(".data..ro_after_init") level = 4;
int in(".data..ro_after_init") shared = 5;
int sealed = 6;
static int in(".data..ro_after_init") passed = 7;
#endif
int check(long n)
{
	return take(n, limit) + sealed + level;
}
int in(".init.text") setup(long n) { limit = n; return take(n, limit) + 1; }
int set(long n)
{
#ifdef NEW
	level = n;
#endif
	return take(n, level) + shared;
}
int pass(long n) { return handle(&passed) + 3; }
