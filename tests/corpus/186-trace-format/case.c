/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int __trace_bprintk(u64 ip, const char *fmt, ...);
int __trace_bputs(u64 ip, const char *text);
#define FORMAT(fmt) static const char *trace_printk_fmt used in("__trace_printk_fmt") = fmt
#define trace_printk(fmt, ...) do { FORMAT(fmt); __trace_bprintk(1, trace_printk_fmt, __VA_ARGS__); } while (0)
#define trace_puts(text) do { FORMAT(text); __trace_bputs(1, trace_printk_fmt); } while (0)

int check(long n)
{
	trace_printk("check %ld\n", n);
#ifdef NEW
	trace_puts("check again\n");
	trace_printk("check %ld of %s\n", n, "many");
#endif
	return take(n, 1) + 1;
}
/* Another text of the same message: only who prints it reads it. */
int renamed(long n)
{
#ifdef NEW
	trace_printk("the new %ld\n", n);
#else
	trace_printk("the old %ld\n", n);
#endif
	return take(n, 2) + 1;
}
int kept(long n) { trace_printk("kept %ld\n", n); return take(n, 3) + 1; }
