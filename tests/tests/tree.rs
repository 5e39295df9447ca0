//! Objects from the prepared tree: the shadow tree gives what kbuild gives, and a change changes only what it touches.

use std::fs;

use harness::change::Change;
use harness::tree::Flags;
use lpbuild_tests::Env;

const SOURCE: &str = "fs/proc/cmdline.c";
const OBJECT: &str = "fs/proc/cmdline.o";

#[test]
fn an_unchanged_file_compiled_in_the_shadow_is_the_stock_object() {
    let Some(env) = Env::find("an_unchanged_file_compiled_in_the_shadow_is_the_stock_object") else { return };
    // kernel/sys.c has WARNs, so __FILE__ strings, and alternatives, so objtool's work.
    for (source, object) in [(SOURCE, OBJECT), ("kernel/sys.c", "kernel/sys.o")] {
        let same = Change::none().file_from(&env.tree.source, source).unwrap();
        let pair = env.tree.pair(&same, Flags::Plain).unwrap();
        let (old, new) = pair.files(object);
        assert!(fs::read(old).unwrap() == fs::read(new).unwrap(), "{object} differs");
    }
}

#[test]
fn a_changed_string_is_in_the_new_object_only() {
    let Some(env) = Env::find("a_changed_string_is_in_the_new_object_only") else { return };
    let before = fs::read(env.tree.source.join(SOURCE)).unwrap();
    let text = "lpbuild was here";
    let new = format!("seq_puts(m, saved_command_line);\n\tseq_puts(m, \"{text}\");");
    let change = Change::none().edit(&env.tree.source, SOURCE, "seq_puts(m, saved_command_line);", &new).unwrap();
    for flags in [Flags::Plain, Flags::Sections] {
        let pair = env.tree.pair(&change, flags).unwrap();
        assert_eq!(pair.objects, [OBJECT]);
        let (old, new) = pair.files(OBJECT);
        let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        let (old, new) = (fs::read(old).unwrap(), fs::read(new).unwrap());
        assert!(!has(&old, text) && has(&new, text));
        for object in [&old, &new] {
            assert_eq!(has(object, ".text.cmdline_proc_show"), flags == Flags::Sections);
        }
    }
    assert_eq!(fs::read(env.tree.source.join(SOURCE)).unwrap(), before, "the shared source was written to");
}

#[test]
fn a_changed_header_reaches_the_object_and_a_broken_change_is_reported() {
    let Some(env) = Env::find("a_changed_header_reaches_the_object") else { return };
    let header = "fs/proc/internal.h";
    let text = fs::read_to_string(env.tree.source.join(header)).unwrap();
    let broken = Change::none().file(header, format!("{text}\n#error reached\n"));
    let error = env.tree.changed_object("fs/proc/uptime.o", &broken, Flags::Plain).err();
    // uptime.c does not include it in every version; version.c of the same folder neither: base.c always does.
    let error = match error {
        Some(e) => e,
        None => env.tree.changed_object("fs/proc/base.o", &broken, Flags::Plain).unwrap_err(),
    };
    assert!(format!("{error:#}").contains("#error reached"), "{error:#}");
}
