/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define VERSION "version=2.1"
#define NOTE 7
#else
#define VERSION "version=2.0"
#define NOTE 6
#endif
static const char version[] in(".modinfo") = VERSION;
static const volatile u32 note[3] in(".note.own") = { 1, NOTE, 3 };

/* sections for tools: but code reads them */
int show_version(void) { return show(version + 8) + 1; }
int read_note(void) { return take(note[1], 2); }
