/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define ONCE
#else
#define ONCE in(".init.text")
#endif
int ONCE probe(long n) { return take(n, 1) + 1; }
int check(long n) { return take(n, 2) + 1; }
