/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static int level = 3;
static noinline int twin(long n) { level++; return take(n, 1) + level; }
int only_in_the_kernel(long n) { return twin(n) + level * 3; }
