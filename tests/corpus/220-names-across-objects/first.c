/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int weak noinline hook(long n) { return take(n, 1) + 1; }
int weak noinline left(long n) { return take(n, 2) + 1; }
int weak level = 3;
int single(long n);
int weak asked(long n);
int weak given_up(long n);
#ifndef NEW
int wanders(long n) { return take(n, 4) + 1; }
int weak changes_sides(long n) { return take(n, 5) + 1; }
#else
int changes_sides(long n) { return take(n, 5) + 1; }
#endif
int single(long n) { return take(n, 6) + 1; }
int uses(long n)
{
	if (asked)
		asked(n);
	if (given_up)
		given_up(n);
	return hook(n) + left(n) + level;
}
