/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* The kernel that runs calls what is defined here otherwise. */
#ifdef IMAGE
#define check checked
#define level real_level
#define hits real_hits
#endif
static long noinline level_of(long n);
static long level = 5;
static int in(".data..percpu") hits = 1;

#ifdef NEW
#define EXTRA(n) take(n, 4)
#else
#define EXTRA(n) (void)(n)
#endif

int check(long n) { EXTRA(n); return take(n, 1) + 1; }
int read(long n) { EXTRA(n); level += n; return take(n, level_of(n)) + 1; }
static long noinline level_of(long n) { barrier(); return level * n; }
int count(long n) { EXTRA(n); asm volatile("incl %%gs:%0" : "+m" (hits)); return take(n, 2) + 1; }
