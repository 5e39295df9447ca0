/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(long n)
{
	switch (n) {
	case 0: return take(n, 10) + 1;
	case 1: return handle((void *)n) + 2;
	case 2: return take(n, 12) + 3;
	case 3: return show("three") + 4;
	case 4: return take(n, 14) + 5;
#ifdef NEW
	case 5: return take(n, 15) + 6;
#endif
	case 6: return show("six") + 7;
	}
	return take(n, 1) + 1;
}
int same(long n)
{
	switch (n) {
	case 0: return take(n, 20) + 1;
	case 1: return handle((void *)n) + 3;
	case 2: return take(n, 22) + 3;
	case 3: return show("three!") + 4;
	case 4: return take(n, 24) + 5;
	case 5: return take(n, 25) + 6;
	}
	return take(n, 1) + 1;
}
