/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int added(long n) { return take(n, 2) + 1; }
