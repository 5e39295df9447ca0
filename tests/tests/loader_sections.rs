//! The table of known sections against the sources it was made for: every section that the module loader looks for by name is
//! in it. The prepared sources of all series are read; where there are none, nothing is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lpbuild::symbolize::known_sections::{self, Fate};
use lpbuild_tests::Env;

/// The parts of the module loader.
const COMMON: &str = "kernel/module";
const ARCH: &[&str] = &["arch/x86/kernel/module.c"];

/// Functions that look for a section, or take the name of one.
const FINDERS: &[&str] = &["section_objs(", "section_addr(", "find_sec(", "find_any_sec(", "any_section_objs("];

/// What a macro of the kernel stands for (include/linux/ftrace.h): either, by how the compiler marks the sites.
const MACROS: &[(&str, &[&str])] = &[("FTRACE_CALLSITE_SECTION", &["__mcount_loc", "__patchable_function_entries"])];

/// Strings of the loader's sources that name a section, each with the file it is in.
fn names(source: &Path) -> BTreeMap<String, String> {
    let mut files: Vec<PathBuf> = ARCH.iter().map(|f| source.join(f)).collect();
    files.extend(fs::read_dir(source.join(COMMON)).unwrap().map(|e| e.unwrap().path()));
    files.retain(|f| f.extension().is_some_and(|e| e == "c"));
    let mut found = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let at = file.strip_prefix(source).unwrap().display().to_string();
        for name in in_text(&text) {
            found.insert(name, at.clone());
        }
    }
    found
}

fn in_text(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for finder in FINDERS {
        for (at, _) in text.match_indices(finder) {
            let call: &str = text[at + finder.len()..].split(';').next().unwrap_or("");
            found.extend(literal(call));
            for (name, stands_for) in MACROS {
                if call.contains(name) {
                    found.extend(stands_for.iter().map(|s| (*s).to_owned()));
                }
            }
        }
    }
    // Comparisons with the table of section names, on either side.
    for (at, word) in text.match_indices("secstrings") {
        let before = text[..at].rfind([';', '{', '}']).map_or("", |from| &text[from..at]);
        let behind: &str = text[at + word.len()..].split([';', '{']).next().unwrap_or("");
        if ["strcmp(", "strncmp(", "strstarts("].iter().any(|f| before.contains(f)) {
            found.extend(literal(before));
            found.extend(literal(behind));
        }
    }
    // Sections that are set apart by how their names begin.
    for (at, word) in text.match_indices("strstarts(name, ") {
        found.extend(literal(text[at + word.len()..].split(')').next().unwrap_or("")));
    }
    found
}

fn literal(text: &str) -> Option<String> {
    let inner = text.split('"').nth(1)?;
    let is_name = inner.starts_with(['.', '_']) && !inner.contains([' ', '%', '\\']);
    is_name.then(|| inner.to_owned())
}

#[test]
fn strings_are_taken_from_the_ways_the_loader_compares() {
    let text = r#"
        mod->a = section_objs(info, "__one", sizeof(*mod->a), &n);
        if (!strcmp(".two", secstrings + s->sh_name)) x = s;
        } else if (strcmp(info->secstrings + shdr->sh_name,
                          ".three") == 0) {
        return strstarts(name, ".four");
        b = section_objs(info, FTRACE_CALLSITE_SECTION, 1, &n);
        pr_warn("%s: has both .ctors and .init_array.\n", name);
    "#;
    let found: Vec<String> = in_text(text).into_iter().collect();
    assert_eq!(found, [".four", ".three", ".two", "__mcount_loc", "__one", "__patchable_function_entries"]);
}

#[test]
fn every_section_the_module_loader_looks_for_is_known() {
    let mut compared = 0;
    for series in ["6.1", "6.12"] {
        let Some(env) = Env::find_series(&format!("sections of the module loader of {series}"), series) else {
            continue;
        };
        let names = names(&env.tree.source);
        // What must be found for this to have compared anything.
        for sure in
            ["__param", "__trace_printk_fmt", ".altinstructions", ".data..percpu", ".modinfo", "___srcu_struct_ptrs"]
        {
            assert!(names.contains_key(sure), "{series}: {sure} not found among {names:?}");
        }
        assert!(names.len() > 35, "{series}: only {} names", names.len());
        for (name, file) in &names {
            // The carried code has sections of its own; a module without `.text` has none of the kernel's.
            let ordinary = !known_sections::is_list(name);
            let known = known_sections::find(name).or_else(|| known_sections::find(&format!("{name}.x")));
            assert!(known.is_some() || ordinary && name == ".text", "{series}: {file} looks for {name}");
            if let Some(known) = known {
                println!("{series} {name}: {:?}, {}", known.fate, known.why);
            }
        }
        compared += 1;
    }
    assert_ne!(known_sections::find("__trace_printk_fmt").map(|k| k.fate), Some(Fate::Dropped));
    println!("{compared} kernels compared");
}
