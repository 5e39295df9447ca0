/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

static const long kept used in(".tests") = 1;
#ifndef NEW
static const long dropped used in(".tests") = 2;
asm(".pushsection .unnamed_tests, \"a\"\n.quad removed\n.popsection");
#endif
int removed(void) { return take(1, 1) + 1; }
