// SPDX-License-Identifier: GPL-2.0-only
/* The kernel's livepatch of the change in bench_cmdline; saved_command_line is not exported, another line stands for it. */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int new_cmdline_proc_show(struct seq_file *m, void *v)
{
	seq_puts(m, "patched ");
	seq_puts(m, "console=ttyS0 quiet panic=-1 no_timer_check nokaslr norandmaps randomize_kstack_offset=off preempt=full");
	seq_putc(m, '\n');
	return 0;
}

static struct klp_func functions[] = {
	{ .old_name = "cmdline_proc_show", .new_func = new_cmdline_proc_show },
	{ }
};
static struct klp_object objects[] = {
	{ .funcs = functions },
	{ }
};
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init klp_cmdline_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit klp_cmdline_exit(void)
{
}

module_init(klp_cmdline_init);
module_exit(klp_cmdline_exit);
MODULE_DESCRIPTION("Livepatch of cmdline_proc_show");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
