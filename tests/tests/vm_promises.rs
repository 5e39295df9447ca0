//! What outlives a patch, on stock kernels: work of the patch that is pending when it goes. With a callback that takes it back the
//! patch is built, and the kernel lives on behind the time at which the work would have run; without one it is refused.

use harness::change::Change;
use harness::tree::Flags;
use harness::vm::Vm;
use lpbuild::plan::manifest::Manifest;
use lpbuild_tests::{Env, on_both};

on_both! {
    pending_work_is_taken_back
    what_the_kernel_keeps_is_refused
}

const FILE: &str = "fs/proc/cmdline.c";
const SHOW: &str = "static int cmdline_proc_show(struct seq_file *m, void *v)\n{\n";

/// Every read of /proc/cmdline has work run two seconds later.
fn delayed(env: &Env) -> Change {
    let new = format!(
        "#include <linux/workqueue.h>\n\
         static void lpt_late(struct work_struct *work) {{ pr_info(\"lpt: late\\n\"); }}\n\
         static DECLARE_DELAYED_WORK(lpt_work, lpt_late);\n\
         static void __used lpt_take_back(void) {{ cancel_delayed_work_sync(&lpt_work); }}\n\
         {SHOW}\tschedule_delayed_work(&lpt_work, 2 * HZ);\n\tseq_puts(m, \"patched \");\n"
    );
    Change::none().edit(&env.tree.source, FILE, SHOW, &new).unwrap()
}

fn pending_work_is_taken_back(series: &'static str) {
    let name = "pending_work_is_taken_back";
    let Some((env, lpbuild)) = Env::series_with_lpbuild(name, series) else { return };
    let pair = env.tree.pair(&delayed(&env), Flags::Plain).unwrap();
    let options = ["--callback".to_owned(), "post-revert=lpt_take_back".to_owned()];
    let maker = env.maker(&lpbuild);
    let module = maker.make_in(&format!("{name}-{series}"), "promise_work", &pair, &options).unwrap();
    let listed =
        module.report.lines().find(|l| l.starts_with("promise ")).unwrap_or_else(|| panic!("{}", module.report));
    assert!(listed.contains("cmdline_proc_show") && listed.contains("lpt_work"), "{listed}");
    let text = std::fs::read_to_string(module.dir.join("manifest.toml")).unwrap();
    let promises = Manifest::parse(&text, "manifest").unwrap().promises;
    let kept: Vec<_> = promises.iter().map(|p| (p.function.as_str(), p.symbol.as_str())).collect();
    assert_eq!(kept, [("cmdline_proc_show", "lpt_work")]);
    let script = r#"
late() { dmesg | grep -c 'lpt: late'; }
ktext save /tmp/text
expect_not_in before 'patched ' "$(cat /proc/cmdline)"
lpbuild inspect /promise_work.ko > /tmp/inspected
expect_in inspected 'promise    ' "$(cat /tmp/inspected)"
lpbuild load /promise_work.ko
expect_in during 'patched ' "$(cat /proc/cmdline)"
sleep 4
expect ran 1 "$(late)"
cat /proc/cmdline
lpbuild unload promise_work
[ ! -e /sys/module/promise_work ] || fail 'the module stayed'
sleep 4
expect taken-back 1 "$(late)"
expect_not_in after 'patched ' "$(cat /proc/cmdline)"
ktext diff /tmp/text
"#;
    let vm = Vm::new(&format!("promises-{series}"), &env.kernel).file("/bin/lpbuild", &lpbuild);
    let vm = vm.file("/promise_work.ko", &module.ko).case(script);
    vm.run().unwrap().require_pass().unwrap_or_else(|e| panic!("{e:#}"));
}

/// Without a callback, and other things a kernel keeps.
fn what_the_kernel_keeps_is_refused(series: &'static str) {
    let Some((env, lpbuild)) = Env::series_with_lpbuild("what_the_kernel_keeps_is_refused", series) else { return };
    let other = |head: &str, body: &str| {
        Change::none().edit(&env.tree.source, FILE, SHOW, &format!("{head}\n{SHOW}\t{body}\n")).unwrap()
    };
    let cases = [
        ("lpt_work", delayed(&env)),
        (
            "lpt_timer",
            other(
                "#include <linux/timer.h>\nstatic void lpt_tick(struct timer_list *t) { pr_info(\"tick\\n\"); }\n\
                 static DEFINE_TIMER(lpt_timer, lpt_tick);",
                "mod_timer(&lpt_timer, jiffies + HZ);",
            ),
        ),
        (
            "lpt_notifier",
            other(
                "#include <linux/reboot.h>\nstatic int lpt_event(struct notifier_block *nb, unsigned long a, void *p) { return 0; }\n\
                 static struct notifier_block lpt_notifier = { .notifier_call = lpt_event };",
                "if (!lpt_notifier.next) register_reboot_notifier(&lpt_notifier);",
            ),
        ),
        (
            "lpt_reclaim",
            other(
                "#include <linux/slab.h>\nstatic void lpt_reclaim(struct rcu_head *head) { kfree(head); }",
                "struct rcu_head *head = kmalloc(sizeof(*head), GFP_KERNEL); if (head) call_rcu(head, lpt_reclaim);",
            ),
        ),
        (
            "lpt_node",
            other(
                "#include <linux/list.h>\nstatic struct list_head lpt_node, *lpt_list;",
                "if (lpt_list) list_add(&lpt_node, lpt_list);\n\tlpt_list = m->private;",
            ),
        ),
    ];
    for (kept, change) in cases {
        let pair = env.tree.pair(&change, Flags::Plain).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let out = env.maker(&lpbuild).diff(&pair, dir.path()).output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(4), "{kept}: {stderr}");
        let all = stderr.lines().filter(|l| l.contains("refused")).all(|l| l.contains("LP2021"));
        assert!(all && stderr.contains(&format!("promise={kept}'")), "{kept}: {stderr}");
        let out = env
            .maker(&lpbuild)
            .diff(&pair, dir.path())
            .args(["--accept", &format!("promise={kept}")])
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(0), "{kept}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
