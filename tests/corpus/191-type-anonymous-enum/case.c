/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define EITHER(old, new) new
#else
#define EITHER(old, new) old
#endif

/* As a bit: neither number is in the code as such. */
enum { READY = EITHER(6, 7), BUSY = EITHER(7, 6) };
long bit(u64 *flags) { return take(*flags & (1 << READY), 1) + 1; }

/* No variable has such a type. */
enum { SLOW = EITHER(11, 12), FAST = EITHER(12, 11) };
long swapped(long *state) { return take(*state == SLOW, 1) + 1; }

/* A number behind those that were there. */
enum {
	EARLY = 21,
	LATE,
#ifdef NEW
	NEVER,
#endif
};
long added(long *state)
{
#ifdef NEW
	if (*state == NEVER)
		return 7;
#endif
	return take(*state == EARLY, LATE) + 1;
}
