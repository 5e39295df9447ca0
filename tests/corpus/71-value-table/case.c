/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int check(unsigned n)
{
	int value;
	switch (n) {
	case 0: value = 11; break;
	case 1: value = 72; break;
	case 2: value = 13; break;
#ifdef NEW
	case 3: value = 94; break;
#else
	case 3: value = 14; break;
#endif
	case 4: value = 55; break;
	default: value = 6;
	}
	return take(value, n) + 1;
}
int same(unsigned n)
{
	int value;
	switch (n) {
	case 0: value = 21; break;
	case 1: value = 52; break;
	case 2: value = 23; break;
	case 3: value = 74; break;
	case 4: value = 25; break;
	default: value = 6;
	}
	return take(value, n) + 2;
}
