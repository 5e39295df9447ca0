//! Which objects may include a file: found by reading `#include` lines, without running the preprocessor.
//!
//! Starts from the sources of the configuration's objects, and of the programs it brings along, and follows what they include, through the source and the
//! generated headers of the build folder. Conditions are ignored and a name in angle brackets may mean every file that ends
//! in it, so the answer can name too many objects, never too few: the compiler's own list of what it read decides later.
//! A file whose `#include` has a macro for a name may include every other one, save trace headers: those say by `TRACE_INCLUDE_FILE` what they
//! mean (include/trace/define_trace.h).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::kbuild::{ObjectPart, TreeLayout};

/// One `#include`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Include {
    /// As written.
    name: String,
    /// `"..."`: looked for beside the including file first.
    quoted: bool,
}

/// Files included by the compiler's command line of every object.
const FORCED: &[&str] =
    &["include/linux/compiler-version.h", "include/linux/kconfig.h", "include/linux/compiler_types.h"];

/// Folders whose files no object of the kernel includes.
const OUTSIDE: &[&str] = &["Documentation", "tools", "samples", ".git", "LICENSES"];

/// Who includes whom.
#[derive(Debug, Default)]
pub struct IncludeIndex {
    /// Every file of source and build folder that can be part of an object.
    files: Vec<String>,
    by_path: HashMap<String, u32>,
    /// By file name: the files that have it.
    by_name: HashMap<String, Vec<u32>>,
    /// For every file: the files that include it.
    included_by: HashMap<u32, Vec<u32>>,
    /// Files that may include any.
    computed: HashSet<u32>,
}

/// Objects that may be made from a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependents {
    /// Those of the kernel and its modules.
    pub objects: BTreeMap<String, ObjectPart>,
    /// Those of other programs.
    pub elsewhere: BTreeSet<String>,
}

/// The object compiled from a source file, if the configuration has one.
pub fn object_of(layout: &TreeLayout, file: &str) -> Option<(String, ObjectPart)> {
    let stem = file.strip_suffix(".c").or(file.strip_suffix(".S"))?;
    let object = format!("{stem}.o");
    layout.objects.get(&object).map(|part| (object, *part))
}

impl IncludeIndex {
    /// Reads the sources of all objects and what they include.
    pub fn read(source: &Path, build: &Path, layout: &TreeLayout) -> Self {
        let mut index = Self::default();
        for root in [source, build] {
            index.list(root);
        }
        index.follow(source, build, layout);
        index
    }

    /// The objects that may include one of `files` (paths relative to the tree), directly or not, or are made from it.
    pub fn dependents<'f>(&self, layout: &TreeLayout, files: impl IntoIterator<Item = &'f String>) -> Dependents {
        let mut elsewhere: HashMap<&str, Vec<&String>> = HashMap::new();
        for (object, e) in &layout.elsewhere {
            elsewhere.entry(e.source.as_str()).or_default().push(object);
        }
        let mut todo: Vec<u32> = files.into_iter().filter_map(|f| self.by_path.get(f)).copied().collect();
        // What macros name are headers.
        if todo.iter().any(|f| self.files.get(*f as usize).is_some_and(|path| path.ends_with(".h"))) {
            todo.extend(&self.computed);
        }
        let mut seen: HashSet<u32> = todo.iter().copied().collect();
        let mut found = Dependents::default();
        while let Some(file) = todo.pop() {
            todo.extend(self.included_by.get(&file).into_iter().flatten().filter(|by| seen.insert(**by)));
            let Some(path) = self.files.get(file as usize) else { continue };
            if FORCED.contains(&path.as_str()) {
                let elsewhere = layout.elsewhere.keys().cloned().collect();
                return Dependents { objects: layout.objects.clone(), elsewhere };
            }
            if let Some((object, part)) = object_of(layout, path) {
                found.objects.insert(object, part);
            }
            found.elsewhere.extend(elsewhere.get(path.as_str()).into_iter().flatten().map(ToString::to_string));
        }
        found
    }

    /// Sources that are included by other files, whether or not they are objects of their own.
    pub fn included_sources(&self) -> BTreeSet<String> {
        let files = self.included_by.keys().filter_map(|id| self.files.get(*id as usize));
        files.filter(|f| f.ends_with(".c") || f.ends_with(".S")).cloned().collect()
    }

    fn list(&mut self, root: &Path) {
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(root.join(&folder)).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() {
                    let other = path.strip_prefix("arch/").is_some_and(|a| a != "x86" && !a.starts_with("x86/"));
                    if !other && !OUTSIDE.contains(&path.as_str()) {
                        folders.push(path);
                    }
                } else if !path.ends_with(".o") && !path.ends_with(".cmd") && !self.by_path.contains_key(&path) {
                    let id = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
                    self.by_name.entry(name).or_default().push(id);
                    self.by_path.insert(path.clone(), id);
                    self.files.push(path);
                }
            }
        }
    }

    fn follow(&mut self, source: &Path, build: &Path, layout: &TreeLayout) {
        let sources = layout.objects.keys().flat_map(|o| {
            let stem = o.strip_suffix(".o").unwrap_or(o);
            [format!("{stem}.c"), format!("{stem}.S")]
        });
        let elsewhere = layout.elsewhere.values().map(|e| e.source.clone());
        let starts = sources.chain(elsewhere).chain(FORCED.iter().map(ToString::to_string));
        let mut todo: Vec<u32> = starts.filter_map(|s| self.by_path.get(&s)).copied().collect();
        let mut seen: HashSet<u32> = todo.iter().copied().collect();
        while let Some(file) = todo.pop() {
            let Some(path) = self.files.get(file as usize) else { continue };
            // A file of the build folder stands before one of the source, as in the order of -I.
            let text = std::fs::read(source.join(path)).or_else(|_| std::fs::read(build.join(path)));
            let text = text.unwrap_or_default();
            let Some(includes) = parse(&text) else {
                self.computed.insert(file);
                continue;
            };
            for include in includes {
                for target in self.resolve(path, &include) {
                    self.included_by.entry(target).or_default().push(file);
                    if seen.insert(target) {
                        todo.push(target);
                    }
                }
            }
        }
    }

    fn resolve(&self, from: &str, include: &Include) -> Vec<u32> {
        let folder = from.rsplit_once('/').map_or("", |(d, _)| d);
        if include.quoted
            && let Some(beside) = normal(&format!("{folder}/{}", include.name)).and_then(|p| self.by_path.get(&p))
        {
            return vec![*beside];
        }
        // `../x.h` is relative to some -I: everything that ends like it.
        let name = include.name.trim_start_matches("../").trim_start_matches("./");
        let last = name.rsplit('/').next().unwrap_or(name);
        let candidates = self.by_name.get(last).into_iter().flatten().copied();
        let ends = |id: &u32| {
            let path = self.files.get(*id as usize);
            path.and_then(|p| p.strip_suffix(name)).is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        candidates.filter(ends).collect()
    }
}

/// A path without `.` and `..`, if it stays inside.
fn normal(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

/// The names that a text includes, as they are written; nothing when a macro says them.
pub fn names(text: &[u8]) -> Option<Vec<String>> {
    Some(parse(text)?.into_iter().map(|i| i.name).collect())
}

/// What a file includes; nothing when a macro says it.
fn parse(text: &[u8]) -> Option<Vec<Include>> {
    let mut found = Vec::new();
    for (before, rest) in lines_with(text, b"include") {
        let mut words = before.iter().filter(|c| !c.is_ascii_whitespace());
        if words.next() != Some(&b'#') || words.next().is_some() {
            continue;
        }
        let close = match rest.first() {
            Some(b'"') => b'"',
            Some(b'<') => b'>',
            _ if rest.starts_with(b"TRACE_INCLUDE(") => continue,
            _ => return None,
        };
        let name = rest.get(1..).unwrap_or_default();
        if let Some(end) = memchr::memchr(close, name)
            && let Some(name) = name.get(..end).and_then(|n| std::str::from_utf8(n).ok())
        {
            found.push(Include { name: name.to_owned(), quoted: close == b'"' });
        }
    }
    for (before, rest) in lines_with(text, b"TRACE_INCLUDE_FILE") {
        if before.split(|c| c.is_ascii_whitespace() || *c == b'#').rfind(|w| !w.is_empty()) == Some(b"define")
            && let Some(stem) = rest.split(u8::is_ascii_whitespace).next().and_then(|n| std::str::from_utf8(n).ok())
        {
            found.push(Include { name: format!("{stem}.h"), quoted: false });
        }
    }
    Some(found)
}

/// What stands on a line before and behind each occurrence of a word.
fn lines_with<'t>(text: &'t [u8], word: &'t [u8]) -> impl Iterator<Item = (&'t [u8], &'t [u8])> {
    memchr::memmem::find_iter(text, word).map(move |at| {
        let start = text.get(..at).and_then(|b| memchr::memrchr(b'\n', b)).map_or(0, |n| n.saturating_add(1));
        let rest = text.get(at.saturating_add(word.len())..).unwrap_or_default();
        let rest = rest.get(..memchr::memchr(b'\n', rest).unwrap_or(rest.len())).unwrap_or_default();
        (text.get(start..at).unwrap_or_default(), rest.trim_ascii_start())
    })
}

#[cfg(test)]
mod tests {
    use super::super::kbuild::Elsewhere;
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, TreeLayout) {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = TreeLayout::default();
        for (path, text) in files {
            let path_on_disk = dir.path().join("s").join(path);
            std::fs::create_dir_all(path_on_disk.parent().unwrap()).unwrap();
            std::fs::write(path_on_disk, text).unwrap();
            if let Some(stem) = path.strip_suffix(".c") {
                layout.objects.insert(format!("{stem}.o"), ObjectPart::Builtin);
            }
        }
        (dir, layout)
    }

    fn dependents_of(files: &[(&str, &str)], changed: &str) -> Vec<String> {
        let (dir, layout) = tree(files);
        let index = IncludeIndex::read(&dir.path().join("s"), &dir.path().join("b"), &layout);
        index.dependents(&layout, &[changed.to_owned()]).objects.into_keys().collect()
    }

    #[test]
    fn headers_are_followed_through_other_headers_and_sources() {
        let files = [
            ("include/linux/a.h", "#pragma once\n"),
            ("include/linux/b.h", " #  include <linux/a.h>\n"),
            ("net/x.c", "#include <linux/b.h>\n"),
            ("net/y.c", "// #include <linux/b.h>\n/* include */\n"),
            ("net/z.c", "#include \"../include/linux/a.h\"\n"),
            ("net/w.c", "#include \"x.c\"\n"),
        ];
        assert_eq!(dependents_of(&files, "include/linux/a.h"), ["net/w.o", "net/x.o", "net/z.o"]);
    }

    #[test]
    fn objects_of_other_programs_are_found_by_their_source_and_what_it_includes() {
        let files = [
            ("include/linux/a.h", ""),
            ("arch/x86/boot/string.c", "#include <linux/a.h>\n"),
            ("arch/x86/purgatory/p.c", "#include \"../boot/string.c\"\n"),
            ("net/x.c", "#include <linux/a.h>\n"),
        ];
        let (dir, mut layout) = tree(&files);
        for source in ["arch/x86/boot/string", "arch/x86/purgatory/p"] {
            layout.objects.remove(&format!("{source}.o"));
            let e = Elsewhere { source: format!("{source}.c"), recipe: None };
            layout.elsewhere.insert(format!("{source}.o"), e);
        }
        let index = IncludeIndex::read(&dir.path().join("s"), &dir.path().join("b"), &layout);
        let of = |file: &str| index.dependents(&layout, [&file.to_owned()]);
        let found = of("include/linux/a.h");
        assert_eq!(found.objects.into_keys().collect::<Vec<_>>(), ["net/x.o"]);
        assert_eq!(found.elsewhere.len(), 2);
        assert_eq!(of("arch/x86/boot/string.c").elsewhere.len(), 2);
        assert!(of("net/x.c").elsewhere.is_empty());
    }

    #[test]
    fn a_quoted_name_means_the_file_beside_if_there_is_one() {
        let files = [
            ("a/internal.h", ""),
            ("b/internal.h", ""),
            ("a/x.c", "#include \"internal.h\"\n"),
            ("b/x.c", "#include \"internal.h\"\n"),
            ("c/x.c", "#include \"internal.h\"\n"),
        ];
        // c/x.c finds it by some -I; which is for the compiler to say.
        assert_eq!(dependents_of(&files, "a/internal.h"), ["a/x.o", "c/x.o"]);
    }

    #[test]
    fn an_include_that_a_macro_names_may_be_any() {
        let files = [
            ("linux/a.h", ""),
            ("linux/api.h", "#define WHICH <linux/a.h>\n#include <linux/magic.h>\n"),
            ("linux/magic.h", "# include WHICH\n"),
            ("trace/events/a.h", "#define TRACE_INCLUDE_FILE a_more\n#include <trace/define_trace.h>\n"),
            ("trace/a_more.h", ""),
            ("trace/define_trace.h", "#include TRACE_INCLUDE(TRACE_INCLUDE_FILE)\n"),
            ("net/x.c", "#include <linux/api.h>\n"),
            ("net/y.c", "#include <trace/events/a.h>\n"),
            ("net/z.c", " * #include WHICH\n"),
        ];
        assert_eq!(dependents_of(&files, "linux/a.h"), ["net/x.o"]);
        assert_eq!(dependents_of(&files, "trace/a_more.h"), ["net/x.o", "net/y.o"]);
    }

    #[test]
    fn what_every_command_line_includes_concerns_every_object() {
        let files =
            [("include/linux/kconfig.h", "#include <generated/x.h>\n"), ("include/generated/x.h", ""), ("a/x.c", "\n")];
        assert_eq!(dependents_of(&files, "include/generated/x.h"), ["a/x.o"]);
        assert_eq!(dependents_of(&files, "include/linux/kconfig.h"), ["a/x.o"]);
    }
}
