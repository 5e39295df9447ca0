/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int greet(int n)
{
#ifdef NEW
	_printk("hello new world %d\n", n);
#else
	_printk("hello world %d\n", n);
#endif
	return n + 1;
}
int same(int n) { _printk("hello world %d\n", n); return n + 2; }
