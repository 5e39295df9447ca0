/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define noipa __attribute__((__noipa__))
/* What no declaration leads to: as index, factor, bit, mask and width. */
enum slot {
	SLOT_A,
#ifdef NEW
	SLOT_B,
#endif
	SLOT_C,
	SLOT_D,
};
enum flag {
#ifdef NEW
	FLAG_X,
#endif
	FLAG_Y = 3
#ifdef NEW
		+ 1
#endif
};
/* The last one is no bound, although it moved as one does. */
enum way {
	WAY_IN,
#ifdef NEW
	WAY_ERR,
#endif
	WAY_OUT,
};
struct row {
	long key, value;
#ifdef NEW
	long added;
#endif
};
struct bits {
#ifdef NEW
	unsigned int lead : 1;
#endif
	unsigned int state : 4, rest : 27;
};
struct narrow {
#ifdef NEW
	u16 count, spare;
#else
	u32 count;
#endif
};
typedef long (*hook)(long);

long index(hook *hooks, long n) { return hooks[SLOT_C](n) + 1; }
long last(hook *hooks, long n) { return hooks[WAY_OUT](n) + 2; }
long bit(long word) { return take(word | 1L << FLAG_Y, 1) + 1; }
long factor(void *rows, long n) { return take(((struct row *)rows)[n].key, 1) + 1; }
long mask(void *data) { return take(((struct bits *)data)->state, 1) + 1; }
long width(void *data) { return take(((struct narrow *)data)->count, 1) + 1; }
