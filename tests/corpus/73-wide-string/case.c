/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int wide(const u16 *text);
int check(long n)
{
#ifdef NEW
	return wide(u"Boot0001") + take(n, 1);
#else
	return wide(u"Boot0000") + take(n, 1);
#endif
}
int same(long n) { return wide(u"Boot0000") + take(n, 2); }
