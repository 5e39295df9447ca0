/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct param { const char *name; int *value; int perm; };
static int level;
#ifdef NEW
static struct param in("__param") used __param_level = { "level", &level, 0644 };
#else
static struct param in("__param") used __param_level = { "level", &level, 0444 };
#endif
int check(long n) { return take(n, level) + 1; }
