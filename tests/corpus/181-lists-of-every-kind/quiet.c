/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* Without flags a section is not loaded, unless a linker script puts it beside one that is. */
#ifdef NEW
asm(".pushsection quiet_list\n.long 2\n.popsection");
#else
asm(".pushsection quiet_list\n.long 1\n.popsection");
#endif
int quiet(void) { return take(1, 1) + 1; }
