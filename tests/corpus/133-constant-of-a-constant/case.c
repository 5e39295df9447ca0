/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct ops { int (*open)(long); int (*seek)(long); };
struct file { long flags; const struct ops *ops; };
int first_seek(long n);
int second_seek(long n);
#ifdef NEW
#define SEEK second_seek
#else
#define SEEK first_seek
#endif
static int open(long n) { return take(n, 1) + 1; }
static const struct ops plain_ops = { open, SEEK };
static const struct ops *const all[2] = { &plain_ops, 0 };
void give(struct file *f, long n) { f->ops = all[n & 1]; }
