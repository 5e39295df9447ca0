//! A module in two builds: the new one has a function more, in front of the others, and gives another number.

const SOURCE: &str = r#"#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

static unsigned int reads;
static struct proc_dir_entry *entry;

static noinline int first(struct seq_file *m)
{
	return FIRST;
}

static noinline int number(struct seq_file *m)
{
	return seq_has_overflowed(m) ? -1 : first(m) + reads++;
}

static int ko_pair_show(struct seq_file *m, void *unused)
{
	seq_printf(m, "number %d\n", number(m));
	return 0;
}

static int __init ko_pair_init(void)
{
	entry = proc_create_single("ko_pair", 0, NULL, ko_pair_show);
	return entry ? 0 : -ENOMEM;
}

static void __exit ko_pair_exit(void)
{
	proc_remove(entry);
}

module_init(ko_pair_init);
module_exit(ko_pair_exit);
MODULE_LICENSE("GPL");
"#;

/// Its name.
pub const NAME: &str = "ko_pair";

/// Old and new.
pub fn sources() -> [String; 2] {
    // The old one has no such function.
    let old = SOURCE.replace("static noinline int first(", "static inline int first(").replace("FIRST", "100");
    [old, SOURCE.replace("FIRST", "m->size ? 200 : 300")]
}
