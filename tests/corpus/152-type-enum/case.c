/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* One in the middle: what was stored as RUNNING is now PAUSED. */
enum inserted {
	IDLE = 5,
#ifdef NEW
	PAUSED,
#endif
	RUNNING,
};
struct machine { enum inserted state; };
long runs(struct machine *m) { return take(m->state == RUNNING, 1) + 1; }

/* One behind: all that was stored means the same. */
enum appended {
	RED,
	GREEN,
#ifdef NEW
	BLUE,
#endif
};
struct lamp { enum appended colour; };
long glows(struct lamp *l)
{
#ifdef NEW
	if (l->colour == BLUE)
		return 7;
#endif
	return take(l->colour == GREEN, 2) + 1;
}
