/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct context {
	long first;
#ifdef NEW
	long added;
#endif
	long last;
};
union word {
	long number;
#ifdef NEW
	char text[16];
#endif
};
long f(struct context *c, union word *w)
{
#ifdef NEW
	w->text[9] = 1;
#endif
	return take(c->last, w->number) + 1;
}
