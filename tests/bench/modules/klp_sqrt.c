// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's livepatch of the change in bench_sqrt: the body of lib/math/int_sqrt.c with one line changed. With open=1 it
 * replaces pause(2) as well: whoever is asleep there keeps the transition open.
 */
#include <linux/bitops.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <asm/ptrace.h>

static bool open;
module_param(open, bool, 0444);

static unsigned long new_int_sqrt(unsigned long x)
{
	unsigned long b, m, y = 0;

	if (x <= 1)
		return x;

	m = 1UL << (__fls(x) & ~1UL);
	while (m != 0) {
		b = y + m;
		y >>= 1;

		if (x >= b) {
			x -= b;
			y |= m;
		}
		m >>= 2;
	}

	return y;
}

static long new_pause(const struct pt_regs *regs)
{
	return -EINTR;
}

static struct klp_func functions[] = {
	{ .old_name = "int_sqrt", .new_func = new_int_sqrt },
	{ .old_name = "__x64_sys_pause", .new_func = new_pause },
	{ }
};
static struct klp_object objects[] = {
	{ .funcs = functions },
	{ }
};
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init klp_sqrt_init(void)
{
	if (!open)
		functions[1] = (struct klp_func){ };
	return klp_enable_patch(&patch);
}

static void __exit klp_sqrt_exit(void)
{
}

module_init(klp_sqrt_init);
module_exit(klp_sqrt_exit);
MODULE_DESCRIPTION("Livepatch of int_sqrt");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
