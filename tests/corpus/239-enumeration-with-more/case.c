/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* Another number behind the others, and the bound that grows with it. */
enum item {
	ITEM_A,
	ITEM_B,
#ifdef NEW
	ITEM_C,
#endif
	NR_ITEMS,
};

long f(long n)
{
#ifdef NEW
	n += ITEM_C * 100;
#endif
	return take(n, ITEM_B) + 1;
}
