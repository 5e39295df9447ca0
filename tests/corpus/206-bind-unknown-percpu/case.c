/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* The kernel that runs has these under other names, and none of the names here. */
#ifdef IMAGE
#define hits real_hits
#define level real_level
#define second real_second
#endif
extern int in(".data..percpu") hits;
extern int in(".data..percpu") level;
extern int in(".data..percpu") second weak;

#ifdef NEW
#define EXTRA(n) take(n, 4)
#else
#define EXTRA(n) (void)(n)
#endif

int add(long n)
{
	EXTRA(n);
	asm volatile("incl %%gs:%0" : "+m" (hits));
	return take(n, 1) + 1;
}
int get(long n)
{
	int now;

	EXTRA(n);
	asm volatile("movl %%gs:%p1, %0" : "=r" (now) : "i" (&level));
	return take(n, now) + 1;
}
int more(long n)
{
	EXTRA(n);
	asm volatile("incl %%gs:%0" : "+m" (second));
	return take(n, 2) + 1;
}
