/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int inserted(void) { static int hits; return ++hits + take(hits, 1); }
#endif
int first(void) { static int hits; return ++hits + take(hits, 2); }
int second(void) { static int hits; return ++hits + take(hits, 3); }
int third(void)
{
	static int hits = 5;
#ifdef NEW
	take(1, 1);
#endif
	return ++hits + take(hits, 4);
}
