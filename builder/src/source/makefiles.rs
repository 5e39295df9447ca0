//! Makefiles of folders that a change touches: which objects come, and which are compiled otherwise than before.
//!
//! kbuild is asked about the folders twice, as they are and with the change, and the answers are compared: the old object is
//! made by the old command and the new one by the new. Only rules are looked at here, since kbuild says nothing of files it
//! would generate. Refused: objects that go, or move between kernel and module (LP6306), changed rules (LP6304).

use std::collections::{BTreeMap, BTreeSet};

use super::compile::Shadow;
use super::kbuild::{Kbuild, ObjectPart, Recipe, TreeLayout, is_below};
use super::patch::{FileChange, SourceChange};
use super::touched::Unused;
use super::tree::Tree;
use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::tool::Log;

/// An object that the changed Makefiles add, or compile otherwise.
#[derive(Clone, Debug)]
pub struct Recompiled {
    /// Where it ends up.
    pub part: ObjectPart,
    /// How the kernel's own was compiled; nothing for a new object.
    pub old: Option<Recipe>,
    /// How it is compiled with the change; names the stock source.
    pub new: Recipe,
}

/// The folders whose objects depend on the Makefiles of a change, none below another, and the Makefiles that no folder of
/// this configuration reads.
pub fn folders(layout: &TreeLayout, makefiles: &BTreeSet<String>) -> (BTreeSet<String>, Vec<Unused>) {
    let mut folders = BTreeSet::new();
    let mut unused = Vec::new();
    for makefile in makefiles {
        let own = makefile.rsplit_once('/').map_or(".", |(d, _)| d);
        let readers = layout.read_for.get(makefile);
        // A Kbuild that is added goes before a Makefile that is there.
        let own = layout.has_folder(own).then(|| own.to_owned());
        if readers.is_none() && own.is_none() {
            let why = "no folder of this configuration is built by it".into();
            unused.push(Unused { file: makefile.clone(), why });
        }
        folders.extend(readers.into_iter().flatten().cloned().chain(own));
    }
    let all = folders.clone();
    folders.retain(|f| !all.iter().any(|top| top != f && is_below(f, top)));
    (folders, unused)
}

/// Refuses Makefiles in which a rule is changed: what it makes, other objects can be made from.
pub fn screen(change: &SourceChange, makefiles: &BTreeSet<String>) -> Vec<Problem> {
    let files = makefiles.iter().filter_map(|m| Some((m, change.files.get(m)?)));
    files
        .filter_map(|(makefile, file)| {
            let rule = changed_rule(file)?;
            let what = format!("a rule by which other files are made is changed: {}", rule.trim());
            Some(Problem::new(codes::LP6304, Place::object(makefile), what))
        })
        .collect()
}

/// Everything in `folders` that is compiled otherwise with the change, by object.
pub fn compare(
    tree: &Tree,
    shadow: &Shadow,
    folders: &BTreeSet<String>,
    log: &Log,
) -> Result<BTreeMap<String, Recompiled>> {
    let stock = tree.kbuild(log);
    let changed = Kbuild { source: &shadow.source, build: &tree.build, external: None, log };
    let mut all = BTreeMap::new();
    let mut problems = Vec::new();
    for folder in folders {
        let old = stock.list(&tree.layout, folder)?;
        let new = changed.list(&tree.layout, folder)?;
        for (object, part) in &old.objects {
            if new.objects.get(object) != Some(part) {
                let what = match new.objects.get(object) {
                    None => "with the change it is not built any more",
                    Some(_) => "with the change it moves between the kernel and a module",
                };
                problems.push(Problem::new(codes::LP6306, Place::object(object), what));
            }
        }
        let names = |of: &TreeLayout| -> BTreeSet<String> { of.objects.keys().cloned().collect() };
        let before = stock.dry_recipes(&tree.layout, &names(&old))?;
        let after = changed.dry_recipes(&tree.layout.with(folder, &new), &names(&new))?;
        let (from, to) = (shadow.source.to_string_lossy(), tree.source.to_string_lossy());
        for (object, mut recipe) in after {
            for text in [&mut recipe.flags, &mut recipe.source, &mut recipe.objtool] {
                *text = text.replace(from.as_ref(), &to);
            }
            let Some(part) = new.objects.get(&object).copied() else { continue };
            let old = before.get(&object).cloned();
            if old.as_ref() != Some(&recipe) {
                all.insert(object, Recompiled { part, old, new: recipe });
            }
        }
    }
    if !problems.is_empty() {
        return Err(Error { problems });
    }
    // What has to be generated before is made now.
    let old: BTreeSet<String> = all.iter().filter(|(_, r)| r.old.is_some()).map(|(o, _)| o.clone()).collect();
    stock.recipes(&tree.layout, &old)?;
    Ok(all)
}

/// The first changed line of either side that belongs to a rule or to a command of one.
fn changed_rule(file: &FileChange) -> Option<String> {
    let text =
        |side: &Option<Vec<u8>>| side.as_deref().map(|b| String::from_utf8_lossy(b).into_owned()).unwrap_or_default();
    let (old, new) = (text(&file.old), text(&file.new));
    let before: BTreeSet<String> = rules(&old).into_iter().collect();
    let after: BTreeSet<String> = rules(&new).into_iter().collect();
    before.symmetric_difference(&after).next().cloned()
}

/// Lines of rules: targets that have commands, the commands, and variables that hold commands or host programs.
fn rules(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines: Vec<&str> = joined.lines().collect();
    let mut found = Vec::new();
    let mut target = "";
    for (index, line) in lines.iter().enumerate() {
        let is_recipe = line.starts_with('\t');
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.is_empty() || words.starts_with('#') {
            continue;
        }
        match assigned(&words) {
            Some(name) if is_command(name) => found.push(words),
            Some(_) => {}
            None if is_recipe && !target.is_empty() => found.push(format!("{target} -> {words}")),
            None if is_recipe => {}
            None if words.contains(':') => {
                target = line;
                let has_commands = lines.get(index + 1).is_some_and(|next| next.starts_with('\t'));
                if has_commands || words.contains(';') {
                    found.push(words);
                }
            }
            None => {}
        }
    }
    found
}

/// The variable a line assigns to, for all objects or for some (`x.o: ccflags-y += ..`).
fn assigned(line: &str) -> Option<&str> {
    let (left, _) = line.split_once('=')?;
    let left = left.trim_end_matches([':', '+', '?', '!']).trim_end();
    // `target: VARIABLE = value`; a colon in front of a prerequisite has no `=` behind it.
    let name = left.rsplit([' ', ':']).next()?;
    (!name.is_empty() && !left.starts_with(['@', '-']) && !left.contains("$(call ")).then_some(name)
}

/// Whether kbuild runs the variable's value, or makes a program of it that makes other files.
fn is_command(name: &str) -> bool {
    ["cmd_", "rule_", "filechk_", "host", "HOST", "userprogs"].iter().any(|p| name.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "obj-y := a.o \\\n\tb.o\nCFLAGS_a.o += -O2\n\nquiet_cmd_gen = GEN $@\n      cmd_gen = $(obj)/gen > $@\n\n\
                       hostprogs := gen\n$(obj)/t.c: $(obj)/gen FORCE\n\t$(call if_changed,gen)\n\n$(obj)/a.o: $(obj)/t.c\n\
                       ifdef CONFIG_X\n\tccflags-y += -DX\nendif\n";

    fn rule(from: &str, to: &str) -> Option<String> {
        assert!(OLD.contains(from));
        changed_rule(&FileChange::new("lib/Makefile", Some(OLD.into()), Some(OLD.replace(from, to).into())))
    }

    #[test]
    fn flags_and_lists_of_objects_are_no_rules() {
        for (from, to) in [
            ("\tb.o", "\tb.o c.o"),
            ("-O2", "-O3"),
            ("-DX", "-DX=1"),
            ("hostprogs := gen\n", "hostprogs := gen\nKASAN_SANITIZE := n\n$(obj)/a.o: ccflags-y += -O1\n"),
            ("GEN $@", "MAKE $@"),
            ("$(obj)/a.o: $(obj)/t.c\n", "$(obj)/a.o: $(obj)/t.c $(obj)/t.h\n"),
            ("obj-y", "# what is built: here\nobj-y"),
        ] {
            assert_eq!(rule(from, to), None, "{from} -> {to}");
        }
    }

    #[test]
    fn commands_and_what_they_make_are() {
        for (from, to) in [
            ("$(obj)/gen > $@", "$(obj)/gen -x > $@"),
            ("if_changed,gen", "if_changed,other"),
            ("hostprogs := gen", "hostprogs := gen2\nHOSTCFLAGS_gen2.o := -DX"),
            ("$(obj)/gen FORCE", "$(obj)/gen2 FORCE"),
            ("endif\n", "endif\n$(obj)/u.c: ; touch $@\n"),
        ] {
            assert!(rule(from, to).is_some(), "{from} -> {to}");
        }
    }

    #[test]
    fn a_makefile_concerns_the_folders_that_read_it() {
        let mut layout = TreeLayout::default();
        for (makefile, folder) in [
            ("drivers/a/Makefile", "drivers/a"),
            ("drivers/a/b/Makefile", "drivers/a/b"),
            ("drivers/a/lists/Makefile", "drivers/a"),
            ("net/Makefile", "net"),
        ] {
            layout.read_for.entry(makefile.into()).or_default().insert(folder.into());
        }
        let of = |files: &[&str]| folders(&layout, &files.iter().map(ToString::to_string).collect());
        assert_eq!(of(&["drivers/a/lists/Makefile"]).0, ["drivers/a".to_owned()].into());
        assert_eq!(of(&["drivers/a/b/Makefile", "drivers/a/Makefile"]).0, ["drivers/a".to_owned()].into());
        assert_eq!(of(&["net/Kbuild", "drivers/a/b/Makefile"]).0.len(), 2);
        let (none, unused) = of(&["sound/Makefile"]);
        assert!(none.is_empty() && unused.len() == 1);
    }
}
