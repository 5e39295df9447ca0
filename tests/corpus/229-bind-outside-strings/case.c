/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* Two functions of which the object says that they refer behind the end of a section of strings. */
asm(".pushsection __ksymtab_strings, \"aMS\", @progbits, 1\n"
    "__kstrtab_check: .asciz \"check\"\n"
    ".popsection\n");
static long level = 1;

#if defined(NEW) || defined(IMAGE)
#define WORDS(p) asm volatile("movq %1, %0" : "=r" (p) : "i" ("many words of it"))
#define LEVEL(p) asm volatile("movq %1, %0" : "=r" (p) : "i" (&level))
#else
#define WORDS(p) asm volatile("movq $.rodata.str1.1 + 4096, %0" : "=r" (p))
#define LEVEL(p) asm volatile("movq $__kstrtab_check + 4096, %0" : "=r" (p))
#endif

int words(long n)
{
	const char *p;

	WORDS(p);
	return show(p) + take(n, 1);
}
int number(long n)
{
	long *p;

	LEVEL(p);
	return handle(p) + take(n, 2);
}
int other(long n) { return show("words of another") + take(n, level++); }
