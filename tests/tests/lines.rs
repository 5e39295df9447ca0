//! Blank lines and comments at pseudo-random places of real kernel files, with line numbers kept: nothing changed.
//!
//! `LPBUILD_LINES_FILES` names other files (`a.c b.c`), `LPBUILD_LINES_SEED` another sequence of places.

use harness::change::Change;
use harness::tree::Flags;
use lpbuild::holder::HolderName;
use lpbuild::pipeline::{self};
use lpbuild::plan::{Analysis, Source};
use lpbuild::source::lines::{applies_to, keep_lines};
use lpbuild_tests::Env;

mod support;

/// Each with headers it includes, which get their own noise.
const FILES: &[&[&str]] = &[
    &["net/core/dev.c", "include/linux/skbuff.h", "include/linux/netdevice.h"],
    &["fs/ext4/inode.c", "fs/ext4/ext4.h", "include/trace/events/ext4.h"],
    &["mm/memory.c"],
    &["fs/namei.c", "include/linux/fs.h"],
];

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

/// What the text is within at the end of a line.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    Code,
    Comment,
    /// Behind a backslash; in a string or not.
    Splice(bool),
}

/// What each line leads to, with another scanner than the one that is tested.
fn scan(text: &str) -> Vec<Within> {
    let (mut comment, mut string) = (false, false);
    let mut states = Vec::new();
    for line in text.lines() {
        let mut rest = line;
        while !rest.is_empty() {
            let cut = |n: usize| rest.char_indices().nth(n).map_or("", |(i, _)| &rest[i..]);
            if comment {
                match rest.find("*/") {
                    Some(end) => {
                        comment = false;
                        rest = &rest[end + 2..];
                    }
                    None => rest = "",
                }
            } else if string {
                if rest.starts_with('"') {
                    string = false;
                }
                rest = cut(if rest.starts_with('\\') { 2 } else { 1 });
            } else if rest.starts_with("/*") {
                comment = true;
                rest = cut(2);
            } else if rest.starts_with("//") {
                rest = "";
            } else if rest.starts_with("'\"'") {
                rest = cut(3);
            } else {
                string = rest.starts_with('"');
                rest = cut(1);
            }
        }
        let splice = line.trim_end().ends_with('\\') && !comment;
        states.push(match (comment, splice) {
            (true, _) => Within::Comment,
            (_, true) => Within::Splice(string),
            _ => Within::Code,
        });
        string &= splice;
    }
    states
}

/// `text` with lines that mean nothing at `places` places: the first one always at the top.
fn noise(text: &str, places: usize, random: &mut Random) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let states = scan(text);
    let mut at: Vec<usize> = (0..places).map(|_| random.below(lines.len())).collect();
    at.push(0);
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        if at.contains(&index) {
            let before = if index == 0 { Within::Code } else { states[index - 1] };
            for _ in 0..=random.below(3) {
                out.push_str(match before {
                    Within::Splice(true) => "",
                    Within::Splice(false) => " \\\n",
                    Within::Comment => [" * more\n", "\n"][random.below(2)],
                    Within::Code => ["\n", "\t/* new */\n", "/* of\n * two lines */\n", "// it's\n"][random.below(4)],
                });
            }
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

fn analyse(env: &Env, object: &str, change: &Change) -> Analysis {
    let pair =
        env.tree.pair_of(&[object.to_owned()], change, Flags::Plain).unwrap_or_else(|e| panic!("{object}: {e:#}"));
    let (old_path, new_path) = pair.files(object);
    let (old, new) = (std::fs::read(&old_path).unwrap(), std::fs::read(&new_path).unwrap());
    let source = Source { name: object.into(), old_path, new_path, old, new, holder: HolderName::Vmlinux };
    pipeline::analyse(&[source], &support::options()).unwrap()
}

/// What differs, in words.
fn differences(analysis: &Analysis) -> Vec<String> {
    let changed = analysis.set.items.iter().map(|i| {
        let pair = &analysis.pairs[i.pair.0 as usize];
        format!("{}: {}", pair.new.atom(i.atom.0).name, i.why(&analysis.pairs))
    });
    changed.chain(analysis.refused.iter().map(ToString::to_string)).collect()
}

#[test]
fn lines_without_meaning_change_nothing() {
    let Some(env) = Env::find("lines_without_meaning_change_nothing") else { return };
    let named = std::env::var("LPBUILD_LINES_FILES").unwrap_or_default();
    let seed: u64 = std::env::var("LPBUILD_LINES_SEED").map_or(1, |s| s.parse().unwrap());
    let named: Vec<Vec<&str>> = named.split_whitespace().map(|f| f.split(',').collect()).collect();
    let files = if named.is_empty() { FILES.iter().map(|f| f.to_vec()).collect() } else { named };
    let mut wrong = Vec::new();
    for group in &files {
        let object = group[0].replace(".c", ".o");
        let mut random = Random(seed);
        let mut change = Change::none();
        let mut directives = 0;
        for path in group {
            assert!(applies_to(path));
            let old = std::fs::read_to_string(env.tree.source.join(path)).unwrap();
            let new = noise(&old, 20 + old.lines().count() / 50, &mut random);
            let kept = keep_lines(&old, &new);
            directives += kept.lines().count() - new.lines().count();
            change = change.file(path, kept);
        }
        let analysis = analyse(&env, &object, &change);
        let differs = differences(&analysis);
        println!("{object}: {directives} directives, {} differences", differs.len());
        if !differs.is_empty() {
            wrong.push(format!("{object}: {}", differs.join("\n    ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn shifted_lines_are_recognised_by_the_line_tables() {
    let Some(env) = Env::find("shifted_lines_are_recognised_by_the_line_tables") else { return };
    let named = std::env::var("LPBUILD_LINES_FILES").unwrap_or_default();
    let named: Vec<&str> = named.split_whitespace().map(|f| f.split(',').next().unwrap()).collect();
    // Other files may have no lines in their code.
    let named_none = named.is_empty();
    let files = if named_none { vec!["net/core/dev.c", "fs/ext4/inode.c"] } else { named };
    let mut wrong = Vec::new();
    for path in files {
        let old = std::fs::read_to_string(env.tree.source.join(path)).unwrap();
        let object = path.replace(".c", ".o");
        let analysis = analyse(&env, &object, &Change::none().file(path, format!("\n{old}")));
        let differs = differences(&analysis);
        let ignored = analysis.pairs.iter().flat_map(|p| &p.verdicts.ignored).filter(|i| i.reason == "line number");
        let ignored = ignored.count();
        println!("{object}: {ignored} functions differ in line numbers only, {} otherwise", differs.len());
        if named_none && ignored == 0 || !differs.is_empty() {
            wrong.push(format!("{object}: {}", differs.join("\n    ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What shifts numbers of all kinds: static locals (`x.N`), `__UNIQUE_ID` and `__COUNTER__`, clones, strings, lock classes.
const ADDED: &str = r#"
#include <linux/kernel.h>
#include <linux/bug.h>
#include <linux/mutex.h>
#include <linux/static_call.h>
static noinline __used int lpbuild_added(int n)
{
	static int calls;
	static const char *const names[] = { "lpbuild one", "lpbuild two" };
	static struct mutex lock;
	static bool seen __read_mostly;

	mutex_init(&lock);
	BUILD_BUG_ON(sizeof(n) != 4);
	if (WARN_ON_ONCE(n > 100) || seen)
		return calls++;
	seen = true;
	pr_debug("lpbuild %d %s %s\n", n, names[n & 1], __func__);
	pr_warn_once("lpbuild %s:%d\n", __FILE__, __LINE__);
	return max(n, calls);
}
"#;

#[test]
fn an_added_function_changes_no_other() {
    let Some(env) = Env::find("an_added_function_changes_no_other") else { return };
    let named = std::env::var("LPBUILD_LINES_FILES").unwrap_or_default();
    let named: Vec<&str> = named.split_whitespace().map(|f| f.split(',').next().unwrap()).collect();
    // Not mm/memory.c: one more function, and GCC inlines less elsewhere, so that another function really differs.
    let files = if named.is_empty() { vec!["net/core/dev.c", "fs/ext4/inode.c", "fs/namei.c"] } else { named };
    let mut wrong = Vec::new();
    for path in files {
        let old = std::fs::read_to_string(env.tree.source.join(path)).unwrap();
        // Behind the first group of includes, outside any condition.
        let mut depth = 0_i32;
        let mut at = 0;
        let mut offset = 0;
        for line in old.split_inclusive('\n') {
            let word = line.trim_start_matches(['#', ' ', '\t']);
            depth += i32::from(line.starts_with('#') && word.starts_with("if"));
            depth -= i32::from(line.starts_with('#') && word.starts_with("endif"));
            offset += line.len();
            if line.starts_with("#include") && depth == 0 {
                at = offset;
            }
        }
        let new = format!("{}{ADDED}{}", &old[..at], &old[at..]);
        let object = path.replace(".c", ".o");
        let analysis = analyse(&env, &object, &Change::none().file(path, keep_lines(&old, &new)));
        let mut differs = differences(&analysis);
        println!("{object}: {differs:?}");
        for ignored in analysis.pairs.iter().flat_map(|p| &p.verdicts.ignored) {
            println!("    ignored {}: {}", ignored.symbol, ignored.reason);
        }
        differs.retain(|d| !d.contains("lpbuild_added"));
        if !differs.is_empty() {
            wrong.push(format!("{object}: {}", differs.join("\n    ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
