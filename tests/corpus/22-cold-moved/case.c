/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

cold int complain(const char *what);
#ifdef NEW
int inserted(long n) { if (unlikely(n < 0)) { complain("inserted"); return -1; } return take(n, n) + 1; }
#endif
int other(long n) { if (unlikely(n < 0)) { complain("other"); return -1; } return take(n, n) + 1; }
