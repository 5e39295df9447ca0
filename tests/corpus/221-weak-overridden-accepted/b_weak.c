/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int weak noinline hook(long n) { return take(n, 1) + 1; }
int uses(long n) { return hook(n) + 1; }
