/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct file { long flags; const void *ops; };
static int open(long n) { return take(n, 1) + 1; }
int seek(long n);
#ifdef NEW
static const struct { int (*open)(long); int (*seek)(long); } grown = { open, seek };
#define MINE grown
#else
static const struct { int (*open)(long); } small = { open };
#define MINE small
#endif
void set(struct file *f) { f->ops = &MINE; take(f->flags, 1); }
int is_mine(const struct file *f) { return f->ops == &MINE ? take(f->flags, 2) : 3; }
