/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define MARK(text) asm(".pushsection .lpbuild.marks, \"\", @progbits\n.asciz \"" text "\"\n.popsection")
static long kept = 7;
static noinline int helper(long n) { return take(n, 3) + 1; }
int ready(void);
int ready(void) { kept++; return helper(kept) ? -16 : 0; }
MARK("pre-apply ready");
static void gone(void) { take(kept, 4); }
extern void gone(void) __attribute__((__used__));
MARK("post-revert gone");
#endif
int check(long n)
{
#ifdef NEW
	if (n > 8) return -1;
#endif
	return handle((void *)n) + 1;
}
