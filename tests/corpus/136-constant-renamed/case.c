/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct ops { int (*open)(long); int (*seek)(long); };
struct file { long flags; const struct ops *ops; };
int first_seek(long n);
int second_seek(long n);
static int open(long n) { return take(n, 1) + 1; }
#ifdef NEW
#define MINE new_ops
static const struct ops new_ops = { open, second_seek };
#else
#define MINE old_ops
static const struct ops old_ops = { open, first_seek };
#endif
void set(struct file *f) { f->ops = &MINE; take(f->flags, 1); }
int is_mine(const struct file *f) { return f->ops == &MINE ? take(f->flags, 2) : 3; }
