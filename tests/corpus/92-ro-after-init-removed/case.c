/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
static int limit = 3;
#else
static int in(".data..ro_after_init") limit = 3;
#endif
int check(long n)
{
	return take(n, limit) + 1;
}
int in(".init.text") setup(long n) { limit = n; return take(n, limit) + 1; }
