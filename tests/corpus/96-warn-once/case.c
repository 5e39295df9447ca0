/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define WARN_ONCE(cond) do { static unsigned char in(".data.once") __already_done; \
	if (unlikely(cond) && !__already_done) { __already_done = 1; WARN_HERE(__LINE__, 0x907); } } while (0)
int first(long n) { WARN_ONCE(n == 1); return take(n, 1) + 1; }
int check(long n)
{
	WARN_ONCE(n == 2);
#ifdef NEW
	WARN_ONCE(n == 3);
#endif
	return take(n, 2) + 1;
}
int last(long n) { WARN_ONCE(n == 4); return take(n, 3) + 1; }
