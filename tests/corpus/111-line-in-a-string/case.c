/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define HERE __FILE__ ":" TEXT(__LINE__)

#ifdef NEW
#define RETRIES "case.c:9"
#define SIZE "a field of 64"
#line 1003
#else
#define RETRIES "case.c:8"
#define SIZE "a field of 32"
#line 999
#endif
int field(long n)
{
	if (n > 7)
		show("field \"n\" at " HERE);
	return take(n, 1) + 1;
}

int count(long n)
{
	show(RETRIES);
	return take(n, 2) + 1;
}

int size(long n)
{
	show(SIZE);
	return take(n, 3) + 1;
}
