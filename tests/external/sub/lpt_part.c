// SPDX-License-Identifier: GPL-2.0
#include <linux/bug.h>
#include <linux/export.h>
#include <lpt.h>

static unsigned int calls;

int lpt_part(int n)
{
	/* The message has the name of this file as it was given to the compiler. */
	if (WARN_ON(n < 0))
		return 0;
	calls++;
	return lpt_weight(n) + 100 + (calls > 1000000);
}

int lpt_twice(int n)
{
	return 2 * lpt_part(n);
}
EXPORT_SYMBOL_GPL(lpt_twice);
