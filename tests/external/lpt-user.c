// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <lpt.h>

static struct proc_dir_entry *entry;

static noinline void lpt_user_label(struct seq_file *m)
{
	/* A field that shows where the strings are must lie behind where a patch has its jump. */
	seq_putc(m, 'u');
	seq_putc(m, 's');
	seq_putc(m, 'e');
	seq_puts(m, "r ");
}

static int lpt_user_show(struct seq_file *m, void *unused)
{
	/* No call among the first instructions: one that the jump covers could not be run elsewhere. */
	int n = lpt_twice(4);

	lpt_user_label(m);
	seq_printf(m, "%d\n", n + lpt_weight(m->size != 0));
	return 0;
}

static int __init lpt_user_init(void)
{
	entry = proc_create_single("lpt_user", 0, NULL, lpt_user_show);
	return entry ? 0 : -ENOMEM;
}

static void __exit lpt_user_exit(void)
{
	proc_remove(entry);
}

module_init(lpt_user_init);
module_exit(lpt_user_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("External module that imports from another one");
