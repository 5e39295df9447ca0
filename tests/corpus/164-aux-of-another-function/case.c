/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

extern u8 features[];
#define HAS(word, bit) ({ __label__ yes, no; int has; \
	asm goto("1: jmp 6f\n2:\n" \
		".pushsection .altinstructions, \"a\"\n" \
		".long 1b - ., 4f - .\n.word " #word "\n.byte 2b - 1b, 5f - 4f\n.popsection\n" \
		".pushsection .altinstr_replacement, \"ax\"\n4: jmp %l[no]\n5:\n.popsection\n" \
		".pushsection .altinstr_aux, \"ax\"\n6: testb $" #bit ", features+" #word "\n jnz %l[yes]\n jmp %l[no]\n.popsection\n" \
		: : : : yes, no); \
	yes: has = 1; if (0) no: has = 0; has; })
noinline int first(long n)
{
	take(n, 1);
#ifdef NEW
	if (HAS(9, 8))
		n ^= 1;
#endif
	if (HAS(7, 4))
		n += 2;
	return take(n, 2) + 1;
}
noinline int second(long n)
{
	take(n, 1);
	if (HAS(7, 4))
		n += 7;
	if (HAS(7, 4))
		n *= 3;
	return take(n, 2) + 3;
}
noinline int third(long n)
{
	if (HAS(8, 2))
		return handle(&n) + 7;
	return take(n, 4) * 3;
}
