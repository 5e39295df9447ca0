/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
int shared(long n, long more);
long user(long n) { return shared(n, 9) + 1; }
#else
int shared(long n);
long user(long n) { return shared(n) + 1; }
#endif
