/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int hook(long n) { return take(n, 11) + 1; }
int level = 5;
int asked(long n) { return take(n, 13) + 1; }
int wanders(long n) { return take(n, 4) + 1; }
int weak changes_sides(long n) { return take(n, 15) + 1; }
/* Nobody had it, and nobody else can see it. */
int brought(long n) { return take(n, 17) + 1; }
static int used uses(long n) { return take(n, 18) + 1; }
/* The strong one of the other object stays. */
int weak single(long n) { return take(n, 16) + 1; }
#else
int left(long n) { return take(n, 12) + 1; }
int given_up(long n) { return take(n, 14) + 1; }
int changes_sides(long n) { return take(n, 15) + 1; }
#endif
int stays(long n) { return take(n, 19) + 1; }
