// SPDX-License-Identifier: GPL-2.0
// Another module, which calls what kinds exports.
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include "kinds.h"

static struct proc_dir_entry *entry;

static int user_show(struct seq_file *m, void *unused)
{
	seq_printf(m, "exported %d\n", kinds_exported(4));
	return 0;
}

static int __init user_init(void)
{
	entry = proc_create_single("kinds_user", 0, NULL, user_show);
	return entry ? 0 : -ENOMEM;
}

static void __exit user_exit(void)
{
	proc_remove(entry);
}

module_init(user_init);
module_exit(user_exit);
MODULE_LICENSE("GPL");
