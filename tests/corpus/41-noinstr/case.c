/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int in(".noinstr.text") early(long n)
{
#ifdef NEW
	take(n, 2);
#endif
	return take(n, 1) + 1;
}
int in(".kprobes.text") probed(long n)
{
#ifdef NEW
	take(n, 2);
#endif
	return take(n, 1) + 1;
}
