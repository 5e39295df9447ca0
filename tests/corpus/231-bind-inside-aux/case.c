/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#if defined(NEW) || defined(IMAGE)
#define BLOCK "6f"
#else
#define BLOCK ".altinstr_aux + 15"
#endif

extern u8 features[];
int check(long n)
{
	take(n, 1);
	asm goto("1: jmp " BLOCK "\n2:\n"
		".pushsection .altinstructions, \"a\"\n"
		".long 1b - ., 4f - .\n.word 0x76\n.byte 2b - 1b, 5f - 4f\n.popsection\n"
		".pushsection .altinstr_replacement, \"ax\"\n4: jmp %l[no]\n5:\n.popsection\n"
		".pushsection .altinstr_aux, \"ax\"\n6: testb $0x20, features+3\n jnz %l[yes]\n jmp %l[no]\n.popsection\n"
		: : : : yes, no);
yes:
	return take(n, 4) + 3;
no:
	return take(n, 3) + 3;
}
