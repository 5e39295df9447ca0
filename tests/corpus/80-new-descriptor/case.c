/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct descriptor { const char *mod, *func, *file, *format; u32 line : 18, cls : 6, flags : 8; u64 key[2]; } __attribute__((__aligned__(8)));
#define pr_debug(fmt) do { \
	static struct descriptor in("__dyndbg") used __UNIQUE_ID_ddebug = { "corpus", __func__, __FILE__, fmt, __LINE__, 0, 0, { 0, 1 } }; \
	if (unlikely(__UNIQUE_ID_ddebug.flags)) _printk("%p" fmt, &__UNIQUE_ID_ddebug); } while (0)
int check(long n)
{
	pr_debug("check\n");
#ifdef NEW
	pr_debug("check new\n");
	pr_debug("check newer\n");
#endif
	return handle((void *)n) + 3;
}
int other(long n) { pr_debug("other\n"); return handle((void *)n) + 4; }
