/* SPDX-License-Identifier: GPL-2.0-only */

/* A table of alternatives whose entries have no length that is known. */
asm(".pushsection .altinstructions, \"a\"\n.long 1, 2, 3, 4, 5\n.popsection");
