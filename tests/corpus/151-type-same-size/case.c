/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define EITHER(old, new) new
#else
#define EITHER(old, new) old
#endif

struct swapped { EITHER(int a; int b, int b; int a); };
long order(struct swapped *s) { return take(s->a, 1) + 1; }

struct retyped { long id; EITHER(int state, unsigned int flags); };
long meaning(struct retyped *r) { return take(r->EITHER(state, flags), EITHER(2, 3)) + 1; }

struct bits { unsigned int a:3, b:EITHER(4, 5); };
long field(struct bits *b) { return take(b->b, 3) + 1; }

union seen { long number; char EITHER(text, name)[8]; };
long either(union seen *u) { return take(u->EITHER(text, name)[0], EITHER(4, 5)) + 1; }

struct table { int used; int slot[EITHER(4, 3)]; int more[EITHER(1, 2)]; };
long length(struct table *t) { return take(t->slot[EITHER(3, 2)], 5) + 1; }

typedef EITHER(u32, u64) stamp_t;
struct timed { stamp_t when; stamp_t until; };
long typed(struct timed *t) { return take(t->when, 6) + 1; }

static EITHER(int, unsigned int) level;
long global(long n) { level += n; return take(level / 2, 7) + 1; }
