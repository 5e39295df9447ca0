/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int __attribute__((__cold__)) complain(const char *what);
int check(long n)
{
	switch (n) {
	case 0: return take(n, 10) + 1;
	case 1: complain("one"); return take(n, 9) + 2;
	case 2: return take(n, 12) + 3;
	case 3: complain("three"); return -3;
	case 4: return take(n, 14) + 5;
	case 5: complain("five"); return take(n, 3) + 6;
#ifdef NEW
	case 6: return show("six") + 7;
#endif
	}
	return take(n, 1) + 1;
}
