/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* struct bug_entry of 6.19 and later: a format before the name of the file, 16 bytes. Three of them are as long as four of 12. */
#define WARN_WITH(cond, format, flags) do { if (unlikely(cond)) \
	asm volatile("1: ud2\n" \
		".pushsection __bug_table, \"aw\"\n" \
		"2: .long 1b - 2b, %c0 - ., %c1 - .\n" \
		".word %c2, %c3\n" \
		".popsection" : : "i" (format), "i" (__FILE__), "i" (__LINE__), "i" (flags)); } while (0)

int check(long n)
{
	WARN_WITH(n < 0, "n < 0", 0x901);
#ifdef NEW
	n += 3;
#endif
	WARN_WITH(n > 100, "", 0x901);
	return handle((void *)n) + 1;
}
/* Only a flag. */
int flags(long n)
{
#ifdef NEW
	WARN_WITH(n < 0, "n", 0x903);
#else
	WARN_WITH(n < 0, "n", 0x901);
#endif
	return take(n, n) + 1;
}
int other(long n) { WARN_WITH(n < 0, "n < 0", 0x901); return take(n, n) + 2; }
