/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define SEALED(name) asm(".pushsection .ibt_endbr_seal, \"a\"\n.long " #name " - .\n.popsection")

int open_to_all(long n) { return take(n, 1) + 1; }
int sealed(long n) { return take(n, 2) + 1; }
SEALED(sealed);
int known(long n) { return take(n, 3) + 1; }
SEALED(known);
int check(long n)
{
	handle(known);
#ifdef NEW
	handle(open_to_all);
	return take(n, 1) + handle(sealed);
#endif
	return take(n, 1) + sealed(n) + 1;
}
