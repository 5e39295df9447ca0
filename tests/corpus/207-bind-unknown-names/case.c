/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* The kernel that runs has these under other names, and none of the names here. */
#ifdef IMAGE
#define call_it real_call
#define maybe real_maybe
#define level real_level
#define field real_pair[1]
#define __start_no_such __start___bug_table
#endif
int call_it(long n);
int maybe(long n) weak;
extern long level;
#ifdef IMAGE
extern long real_pair[2];
#else
extern long field;
#endif
extern char __start_no_such[];

#ifdef NEW
#define EXTRA(n) take(n, 4)
#else
#define EXTRA(n) (void)(n)
#endif

int code(long n) { EXTRA(n); return call_it(n) + 1; }
int weakly(long n) { EXTRA(n); return maybe(n) + 1; }
int data(long n) { EXTRA(n); return take(n, level) + 1; }
int inner(long n) { EXTRA(n); return take(n, field) + 1; }
int range(long n) { EXTRA(n); return handle(__start_no_such) + 1; }
