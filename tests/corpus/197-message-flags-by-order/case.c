/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define ONCE(text) do { static unsigned char in(".data..once") __already_done; \
	if (!__already_done) { __already_done = 1; show(text); } } while (0)
#define WARN_ONCE(text) do { static unsigned char __warned; \
	if (!__warned) { __warned = 1; show(text); } } while (0)
int other(long n) { ONCE("other"); WARN_ONCE("other"); return take(n, 9) + 1; }
int check(long n)
{
#ifdef NEW
#define OFF 10
#else
#define OFF 0
#endif
	if (n > 1 + OFF)
		ONCE("text");
	if (n > 2 + OFF)
		ONCE("text");
	if (n > 3 + OFF)
		WARN_ONCE("text");
	if (n > 4 + OFF)
		WARN_ONCE("text");
	return take(n, OFF);
}
