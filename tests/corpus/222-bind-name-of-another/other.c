/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int weak noinline hook(long n) { return take(n, 21) + 1; }
int level = 7;
static int used noinline namesake(long n) { return take(n, 22) + 1; }
int strong_elsewhere(long n) { return take(n, 24) + 1; }
int uses(long n) { return hook(n) + namesake(n) + level; }
