/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

cold int complain(const char *what);
int check(long n)
{
	if (unlikely(n < 0)) {
		complain("negative");
#ifdef NEW
		complain("and new");
#endif
		WARN_ON(n == -5);
		return take(n, 1) + 2;
	}
	return handle((void *)n) + 1;
}
int other(long n) { if (unlikely(n < 0)) { complain("other"); return -1; } return take(n, n) + 1; }
