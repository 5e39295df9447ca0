/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct key { int enabled; u64 type; };
extern struct key key_a, key_b;
#ifdef NEW
#define KEY &key_b
#else
#define KEY &key_a
#endif
int check(long n) { take(n, 0); if (STATIC_BRANCH(KEY, 0)) n += handle((void *)1); return take(n, 2) + 1; }
