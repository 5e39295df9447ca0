/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct ops { int (*open)(long); long limit; };
struct file { long flags; const struct ops *ops; };
#ifdef NEW
#define LIMIT 9
#else
#define LIMIT 4
#endif
static int open(long n) { return take(n, 1) + 1; }
/* Where only the limit is read, the compiler has it in the code. */
static const struct ops first_ops = { open, LIMIT };
#ifdef NEW
void set_first(struct file *f) { f->ops = 0; f->flags = take(first_ops.limit, 3); }
#else
void set_first(struct file *f) { f->ops = &first_ops; f->flags = take(first_ops.limit, 3); }
#endif
long read_first(const long *n) { return take(*n, ((const long *)&first_ops)[*n & 1]) + 1; }

static const struct ops second_ops = { open, LIMIT };
in(".init.text") void boot(struct file *f) { f->ops = &second_ops; }
long read_second(const long *n) { return take(*n, ((const long *)&second_ops)[*n & 1]) + 1; }
