/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* A field in the middle: the ones behind it move. */
struct middle {
	long first;
#ifdef NEW
	long added;
#endif
	long last;
};
long in_middle(struct middle *m) { return take(m->last, 1) + 1; }

/* A field at the end: nothing moves, but the objects that exist are smaller. */
struct end {
	long first;
#ifdef NEW
	long added;
#endif
};
long at_end(struct end *e)
{
#ifdef NEW
	e->added++;
#endif
	return take(e->first, 2) + 1;
}

/* A field in what was padding: the objects that exist have no value there. */
struct hole {
	int first;
#ifdef NEW
	int added;
#endif
	long last;
};
long in_hole(struct hole *h)
{
#ifdef NEW
	if (h->added)
		return 0;
#endif
	return take(h->last, 3) + 1;
}

/* Reached through others only. */
struct far {
	long count;
#ifdef NEW
	long limit;
#endif
};
struct third { long pad; struct far *far; };
struct second { struct third *third; };
struct first { struct second *second; };
long through_others(struct first *f)
{
#ifdef NEW
	f->second->third->far->limit = 1;
#endif
	return take(f->second->third->far->count, 4) + 1;
}
