/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#define SEALED(name) asm(".pushsection .ibt_endbr_seal, \"a\"\n.long " #name " - .\n.popsection")

int check(long n) { return take(n, 2) + 1; }
#ifndef NEW
SEALED(check);
#endif
int other(long n) { return take(n, 3) + 1; }
SEALED(other);
