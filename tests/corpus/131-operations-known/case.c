/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define alone __attribute__((__noipa__))
struct ops { int (*open)(long); int (*seek)(long); };
struct file { long flags; const struct ops *ops; };
struct ring { const struct ops *ops[4]; };
int first_seek(long n);
int second_seek(long n);
int get_file(const char *name, const struct ops *ops, long n);
int start(const struct file *file);
#ifdef NEW
#define SEEK second_seek
#else
#define SEEK first_seek
#endif
static int open(long n) { return take(n, 1) + 1; }
#define OPS(name) static const struct ops name = { open, SEEK }

OPS(stored_ops);
void stored(struct file *f) { f->ops = &stored_ops; }

OPS(element_ops);
void element(struct ring *r, long n) { r->ops[n] = &element_ops; }

OPS(passed_ops);
int passed(long n) { return get_file("[case]", &passed_ops, n) + 1; }

OPS(tail_ops);
int tail(long n) { return get_file("[case]", &tail_ops, n); }

OPS(compared_ops);
int compared(const struct file *f, long n) { return f->ops == &compared_ops ? take(n, 2) : 3; }

OPS(returned_ops);
const struct ops *returned(long n) { return n ? &returned_ops : 0; }

OPS(kept_ops);
static const struct ops *current_ops;
void keep(long n) { current_ops = n ? &kept_ops : 0; }
long kept(long n) { return take(n, (long)current_ops); }

OPS(boxed_ops);
int boxed(long n) { struct file f = { n, &boxed_ops }; return start(&f) + 1; }

OPS(pointed_ops);
static const struct ops *pointed used = &pointed_ops;
long point(long n) { return take(n, (long)pointed); }

OPS(called_ops);
int called(int (*with)(const struct ops *)) { return with(&called_ops) + 1; }

OPS(helped_ops);
static alone void help(struct file *f, const struct ops *ops) { f->ops = ops; take(0, 0); }
void helped(struct file *f) { help(f, &helped_ops); f->flags = 0; }

OPS(swapped_ops);
const struct ops *swapped(struct file *f) { return __atomic_exchange_n(&f->ops, &swapped_ops, 5); }

OPS(chosen_ops);
void chosen(struct file *f, long n) { f->ops = n ? &chosen_ops : (void *)f->flags; }
