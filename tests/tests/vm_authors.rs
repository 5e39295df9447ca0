//! What `lpbuild.h` gives to the source of a patch, on the stock kernels: shadow variables and marks.

use harness::edits::Edit;
use lpbuild_tests::bench::{Bench, passes};
use lpbuild_tests::on_both;

on_both! {
    shadow_variables_do_what_the_header_says
    a_patch_in_the_place_of_another_goes_on_with_its_values
}

/// The beginning of `cmdline_proc_show` with something before it and in it.
macro_rules! shows {
    ($before:literal, $inside:literal) => {
        (
            "fs/proc/cmdline.c",
            "static int cmdline_proc_show(struct seq_file *m, void *v)\n{\n",
            concat!(
                "#include <lpbuild.h>\n",
                $before,
                "static int cmdline_proc_show(struct seq_file *m, void *v)\n{\n",
                $inside
            ),
        )
    };
}

/// `check` stops at the first step that is not as it must be, and with it the patch.
const CHECKS: Edit = shows!(
    r#"
#include <linux/irqflags.h>
#include <linux/mutex.h>
struct pair { long n; struct mutex lock; };
LPB_SHADOW(pairs, struct pair);
static long released;
static int refuse(const void *obj, void *value, void *arg) { return -EBUSY; }
static int begin(const void *obj, void *value, void *arg)
{
	struct pair *pair = value;

	mutex_init(&pair->lock);
	pair->n = (long)arg;
	return 0;
}
static void release(const void *obj, void *value) { released += ((struct pair *)value)->n; }
#define STEP(cond) do { step++; if (!(cond)) { pr_err("lpt: step %d\n", step); return -EINVAL; } } while (0)
static int check(void)
{
	unsigned long flags;
	struct pair *p, *q;
	int step = 0;
	char a[2];

	STEP(!lpb_get_pairs(a));
	p = lpb_attach_pairs(a, GFP_KERNEL);
	STEP(p && !p->n && lpb_get_pairs(a) == p);
	STEP(!lpb_attach_pairs(a, GFP_KERNEL));
	STEP(lpb_get_or_attach_pairs(a, GFP_KERNEL) == p && !lpb_get_pairs(a + 1));
	STEP(!lpb_get_or_attach_with_pairs(a + 1, GFP_KERNEL, refuse, NULL) && !lpb_get_pairs(a + 1));
	local_irq_save(flags);
	q = lpb_get_or_attach_with_pairs(a + 1, GFP_ATOMIC, begin, (void *)7);
	local_irq_restore(flags);
	STEP(q && q != p && q->n == 7);
	mutex_lock(&q->lock);
	mutex_unlock(&q->lock);
	STEP(lpb_detach_with_pairs(a + 1, release) && released == 7 && !lpb_get_pairs(a + 1));
	STEP(lpb_detach_pairs(a) && !lpb_detach_pairs(a) && !lpb_get_pairs(a));
	STEP(lpb_get_or_attach_with_pairs(a, GFP_KERNEL, begin, (void *)1));
	STEP(lpb_get_or_attach_with_pairs(NULL, GFP_KERNEL, begin, (void *)2));
	lpb_detach_all_pairs(release);
	STEP(released == 10 && !lpb_get_pairs(a) && !lpb_get_pairs(NULL));
	return 0;
}
LPB_PRE_APPLY(check);
static void good_bye(void) { pr_info("lpt: good bye\n"); }
LPB_POST_REVERT(good_bye);
struct large { char bytes[4000]; };
LPB_SHADOW_KEPT(large, struct large);
"#,
    "\tlong n;\n\tfor (n = 0; n < 10000; n++)\n\t\tif (!lpb_get_or_attach_large((void *)n, GFP_KERNEL))\n\t\t\treturn -ENOMEM;\n\
     \tseq_puts(m, \"patched \");\n"
);

fn shadow_variables_do_what_the_header_says(series: &'static str) {
    let Some(bench) = Bench::find("shadow_variables_do_what_the_header_says", series) else { return };
    let bench = bench.fix("checks", &[CHECKS], "");
    let script = r#"
slab() { sed -n 's/SUnreclaim: *\([0-9]*\) kB/\1/p' /proc/meminfo; }
step 'each call does what it says'
load checks
patched
step 'what is attached is freed with the module'
full=$(slab)
unload checks
original
expect_in 'the other mark' 'good bye' "$(dmesg | tail -5)"
sleep 1
[ $(($full - $(slab))) -gt 30000 ] || fail "40 MB were attached: $full, now $(slab)"
clean
"#;
    passes(&bench.vm("shadow", script));
}

const ONE: Edit = shows!(
    "struct hits { long n; };\nLPB_SHADOW_KEPT(hits, struct hits);\nLPB_SHADOW_KEPT(marks, long);\n",
    "\tstruct hits *hits = lpb_get_or_attach_hits(m->file, GFP_KERNEL);\n\tlong *n;\n\
     \thits = lpb_get_or_attach_hits(NULL, GFP_KERNEL);\n\tn = lpb_get_or_attach_marks(NULL, GFP_KERNEL);\n\
     \tif (hits && n)\n\t\tseq_printf(m, \"one %ld %ld \", ++hits->n, ++*n);\n"
);
/// The same values in another variable of the same name, and another one less.
const TWO: Edit = shows!(
    "struct count { long n; };\nLPB_SHADOW_KEPT(hits, struct count);\n",
    "\tstruct count *hits = lpb_get_or_attach_hits(NULL, GFP_KERNEL);\n\
     \tif (hits)\n\t\tseq_printf(m, \"two %ld \", ++hits->n);\n"
);
/// Values of another size, and the one that the second patch did not have.
const THREE: Edit = shows!(
    "struct hits { long n, m; };\nLPB_SHADOW_KEPT(hits, struct hits);\nLPB_SHADOW_KEPT(marks, long);\n",
    "\tstruct hits *hits = lpb_get_or_attach_hits(NULL, GFP_KERNEL);\n\tlong *n = lpb_get_or_attach_marks(NULL, GFP_KERNEL);\n\
     \tif (hits && n)\n\t\tseq_printf(m, \"three %ld %ld \", ++hits->n, ++*n);\n"
);

fn a_patch_in_the_place_of_another_goes_on_with_its_values(series: &'static str) {
    let Some(bench) = Bench::find("a_patch_in_the_place_of_another_goes_on_with_its_values", series) else { return };
    let bench = bench.fix("one", &[ONE], "").fix("two", &[TWO], "replaces = [\"one\"]\n");
    let bench = bench.fix("three", &[THREE], "replaces = [\"two\"]\n");
    let script = r#"
shows() { expect effect "$1" "$(cut -d' ' -f1-$(set -- $1; echo $#) /proc/cmdline)"; }
for mode in $modes; do
    step "$mode: the next patch goes on with the values of the first, without what it does not have"
    load one mode=$mode
    shows 'one 1 1'; shows 'one 2 2'
    load two mode=$mode
    shows 'two 3'
    rmmod one
    shows 'two 4'
    step "$mode: another size is another variable, and what a patch between did not have is gone"
    load three mode=$mode
    shows 'three 1 1'; shows 'three 2 2'
    rmmod two
    shows 'three 3 3'
    unload three
    original
done
step 'nothing is left for a patch that comes later'
load one
shows 'one 1 1'
unload one
clean
"#;
    passes(&bench.vm("shadow-replaces", script));
}
