/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* __pa of an address of the image: __START_KERNEL_map taken away, phys_base added. */
#define PHYS(p) ((u64)(p) - 0xffffffff80000000UL + phys_base)
extern u64 phys_base;

#ifdef NEW
static char buffer[64] __attribute__((__aligned__(64)));
#endif

int check(u64 *p)
{
#ifdef NEW
	p[0] = PHYS(buffer);
#else
	p[0] = 0;
#endif
	return take(p[0], 3) + 1;
}
