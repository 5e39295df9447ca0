/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

struct descriptor { const char *mod, *func, *file, *format; u32 line : 18, cls : 6, flags : 8; u64 key[2]; } __attribute__((aligned(8)));
#define pr_debug(fmt) do { \
	static struct descriptor in("__dyndbg") used __UNIQUE_ID_ddebug = { "corpus", __func__, __FILE__, fmt, __LINE__, 0, 0, { 0, 1 } }; \
	if (unlikely(__UNIQUE_ID_ddebug.flags)) _printk("%p" fmt, &__UNIQUE_ID_ddebug); } while (0)
#ifdef NEW
#define LIKELY(x) __builtin_expect(!!(x), 0)
#define TEXT "new text\n"
#else
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define TEXT "text\n"
#endif
int first(long n) { pr_debug("first\n"); return handle((void *)n) + 1; }
int check(long n)
{
	if (LIKELY(n == 4)) {
		pr_debug("same\n");
		return take(n, 7);
	}
	if (n == 5) {
		pr_debug("same\n");
		return take(n, 9);
	}
	pr_debug(TEXT);
	return handle((void *)n) + 3;
}
