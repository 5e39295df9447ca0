// SPDX-License-Identifier: GPL-2.0
// One module with every kind of reference and of table entry that the code of a fix may have. /proc/kinds has a line for each:
// KIND VALUE, and the last digit of the value is the build that ran, 1 or 2.
#include <linux/delay.h>
#include <linux/jump_label.h>
#include <linux/module.h>
#include <linux/namei.h>
#include <linux/path.h>
#include <linux/percpu.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/srcu.h>
#include <linux/uaccess.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include "kinds.h"

static int hits = 3;
static int bss;
static int warn;
static int at_init;
static int at_slow;
static bool fail;
static bool late;
static const int table[] = { 5, 7, 11, 13, 17, 19, 23, 29 };
static DEFINE_PER_CPU(int, per_cpu_count);
static DEFINE_STATIC_KEY_FALSE(key);
DEFINE_STATIC_SRCU(kinds_srcu);
static atomic_t counter = ATOMIC_INIT(0);
/* Two names that are of the kernel too, of code and of data. */
static int sysctl_bootid = 40;
static struct proc_dir_entry *entry;

module_param(warn, int, 0644);
module_param(fail, bool, 0444);
module_param(late, bool, 0644);

static noinline int same(int n)
{
	ROOM();
	return 2 * n + hits + BUILD;
}

static int (*const calls[])(int) = { same, second_same };

static noinline __noclone int version_proc_show(int n)
{
	ROOM();
	return 10 * (n + sysctl_bootid) + BUILD;
}

int kinds_exported(int n)
{
	ROOM();
	return 10 * n + BUILD;
}
EXPORT_SYMBOL_GPL(kinds_exported);

static noinline int of_init(void)
{
	ROOM();
	return 10 * hits + BUILD;
}

static noinline int of_data(void)
{
	ROOM();
	return 10 * hits++ + BUILD;
}

static noinline int of_bss(void)
{
	ROOM();
	return 10 * ++bss + BUILD;
}

static noinline int of_rodata(void)
{
	ROOM();
	return 10 * table[bss & 7] + BUILD;
}

static noinline int of_cpu(void)
{
	ROOM();
	this_cpu_add(per_cpu_count, 0);
	return 10 * ++per_cpu(per_cpu_count, 0) + BUILD;
}

static noinline int of_key(void)
{
	ROOM();
	if (static_branch_unlikely(&key))
		return 20 + BUILD;
	return 10 + BUILD;
}

static noinline int of_debug(void)
{
	ROOM();
	pr_debug("debug %d\n", BUILD);
	return 10 + BUILD;
}

static noinline int of_warning(void)
{
	ROOM();
	WARN(warn == 1, "warned by %d\n", BUILD);
	if (warn == 2)
		BUG();
	return 10 + BUILD;
}

/* Neither half of memory has this address. */
static noinline int of_exception(void)
{
	unsigned long value = 10;

	ROOM();
	asm volatile("1: movq (%1), %0\n2:\n" _ASM_EXTABLE(1b, 2b) : "+r" (value) : "r" (1UL << 62));
	return value + BUILD;
}

static noinline int of_srcu(void)
{
	int index, value;

	ROOM();
	index = srcu_read_lock(&kinds_srcu);
	value = 10 * hits + BUILD;
	srcu_read_unlock(&kinds_srcu, index);
	synchronize_srcu(&kinds_srcu);
	return value;
}

static noinline int of_alternative(void)
{
	int value;

	ROOM();
	/* Every CPU of 64 bits has the feature. */
	asm volatile(ALTERNATIVE("movl $50, %0", "movl $60, %0", X86_FEATURE_FXSR) : "=r" (value));
	return value + BUILD;
}

static noinline int of_lock(void)
{
	ROOM();
	return 10 * atomic_inc_return(&counter) + BUILD;
}

/* A static call of the kernel's own, where it has one for this. */
static noinline int of_kernel(void)
{
	ROOM();
	might_sleep();
	cond_resched();
	return 10 * (THIS_MODULE->state == MODULE_STATE_LIVE) + BUILD;
}

static noinline int of_calls(int i)
{
	ROOM();
	return calls[i & 1](i);
}

static noinline int of_static(void)
{
	static int count = 7;

	ROOM();
	return 10 * count++ + BUILD;
}

POINTERS(version_proc_show, of_init, of_data, of_bss, of_rodata, of_cpu, of_key, of_debug, of_warning, of_exception, of_srcu,
	 of_alternative, of_lock, of_kernel, of_static);

static int kinds_show(struct seq_file *m, void *unused)
{
	seq_printf(m, "text %s\n", BUILD == 2 ? "of the fix 2" : "as it was 1");
	seq_printf(m, "init %d\n", at_init);
	if (at_slow)
		seq_printf(m, "slow %d\n", at_slow);
	seq_printf(m, "data %d\n", of_data());
	seq_printf(m, "bss %d\n", of_bss());
	seq_printf(m, "rodata %d\n", of_rodata());
	seq_printf(m, "cpu %d\n", of_cpu());
	seq_printf(m, "key %d\n", of_key());
	seq_printf(m, "debug %d\n", of_debug());
	seq_printf(m, "warning %d\n", of_warning());
	seq_printf(m, "exception %d\n", of_exception());
	seq_printf(m, "srcu %d\n", of_srcu());
	seq_printf(m, "alternative %d\n", of_alternative());
	seq_printf(m, "lock %d\n", of_lock());
	seq_printf(m, "kernel %d\n", of_kernel());
	seq_printf(m, "same %d\n", of_calls(0) - hits);
	seq_printf(m, "other %d\n", of_calls(1) - 503 + 10);
	seq_printf(m, "named %d\n", version_proc_show(1));
	seq_printf(m, "static %d\n", of_static());
	seq_printf(m, "second %d\n", second_count());
	return 0;
}

static int kinds_open(struct inode *inode, struct file *file)
{
	return single_open(file, kinds_show, NULL);
}

static ssize_t kinds_write(struct file *file, const char __user *from, size_t n, loff_t *at)
{
	char on;

	if (get_user(on, from))
		return -EFAULT;
	if (on == '1')
		static_branch_enable(&key);
	else
		static_branch_disable(&key);
	return n;
}

static const struct proc_ops operations = {
	.proc_open = kinds_open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
	.proc_write = kinds_write,
};

/* Parameters are set when the notifiers have run, and before the module's init: this one when the file is there. */
static int set_slow(const char *file, const struct kernel_param *parameter)
{
	struct path path;

	while (kern_path(file, LOOKUP_FOLLOW, &path))
		msleep(10);
	path_put(&path);
	at_slow = of_init();
	return 0;
}

static const struct kernel_param_ops slow_ops = { .set = set_slow };
module_param_cb(slow, &slow_ops, NULL, 0);

static int __init kinds_init(void)
{
	while (READ_ONCE(late))
		msleep(10);
	at_init = of_init();
	if (fail)
		return -EINVAL;
	entry = proc_create("kinds", 0600, NULL, &operations);
	return entry ? 0 : -ENOMEM;
}

static void __exit kinds_exit(void)
{
	pr_info("kinds: goes with %d\n", of_init());
	proc_remove(entry);
}

module_init(kinds_init);
module_exit(kinds_exit);
MODULE_LICENSE("GPL");
