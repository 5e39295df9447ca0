/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int in(".init.text") setup_elsewhere(long n) { return take(n, 31) + 1; }
int also_changed(long n)
{
#ifdef NEW
	take(n, 32);
#endif
	return take(n, 33) + 1;
}
