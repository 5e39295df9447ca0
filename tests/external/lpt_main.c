// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <lpt.h>
#include "lpt_generated.h"

static struct proc_dir_entry *entry;

static int lpt_ext_show(struct seq_file *m, void *unused)
{
	seq_printf(m, "ext %d\n", lpt_part(LPT_NUMBER));
	return 0;
}

static int __init lpt_ext_init(void)
{
	entry = proc_create_single("lpt_ext", 0, NULL, lpt_ext_show);
	return entry ? 0 : -ENOMEM;
}

static void __exit lpt_ext_exit(void)
{
	proc_remove(entry);
}

module_init(lpt_ext_init);
module_exit(lpt_ext_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("External module of several objects");
