/* SPDX-License-Identifier: GPL-2.0 */

/* Room for a jump of twelve bytes, in front of whatever cannot be moved away. */
#ifdef LONG
/* With IBT only what may be called by pointer begins with ENDBR, as an indirect jump wants it. */
#define POINTERS(...) static const void *const pointers[] __used = { __VA_ARGS__ }
#define ROOM() asm volatile(".rept 2\n.byte 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0\n.endr" ::: "memory")
#else
#define ROOM() do { } while (0)
#define POINTERS(...) extern int kinds_exported(int n)
#endif

/* Each function says which build it is of: 1, or 2 for the fixed one. */
int second_same(int n);
int second_count(void);
int kinds_exported(int n);
