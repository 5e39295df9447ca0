/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

/* Executable, and nothing names it. */
#ifdef NEW
asm(".pushsection stubs, \"ax\"\nud2\nnop\nint3\nret\nint3\n.popsection");
#else
asm(".pushsection stubs, \"ax\"\nud2\nnop\nnop\nret\nint3\n.popsection");
#endif
int code(void) { return take(1, 1) + 1; }
