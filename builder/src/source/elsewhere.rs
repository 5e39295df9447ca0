//! Code that the kernel brings along, or is started by, without executing it as its own: vDSO, boot program, EFI stub,
//! real-mode code, purgatory.
//!
//! Their own files are refused by name. Files they share with the kernel (headers, sources that are compiled twice) are
//! settled by the compiler: every object of theirs that reads a changed file is compiled in both versions, by the commands
//! kbuild names for it. Refused: a file with which one of them comes out otherwise, since the patch would change the kernel's
//! copy alone (LP6301); also where that cannot be found out, because the object cannot be compiled by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::compile::{Compiler, Shadow};
use super::kbuild::{Elsewhere, Kbuild, Recipe, TreeLayout};
use super::patch::{FileChange, SourceChange};
use super::tree::Tree;
use crate::accept::Accept;
use crate::codes;
use crate::error::{Error, Place, Problem, Result};

/// What the vDSO is.
pub const VDSO: &str = "the vDSO is mapped into every process and not reached by calls of the kernel";
/// What the boot program is.
pub const BOOT: &str = "code that runs before the kernel does and is gone then";
/// What real-mode code is.
pub const REAL_MODE: &str = "real-mode code, copied below 1 MiB when the machine starts";
/// What the purgatory is.
pub const PURGATORY: &str = "code of the next kernel's start, copied by kexec";

/// Programs: their folder, what they are linked into, and what they are.
const PROGRAMS: &[(&str, Goal, &str)] = &[
    ("arch/x86/entry/vdso", Goal::Images("vdso"), VDSO),
    ("arch/x86/boot", Goal::File("arch/x86/boot/bzImage"), BOOT),
    ("drivers/firmware/efi/libstub", Goal::File("drivers/firmware/efi/libstub/lib.a"), BOOT),
    ("arch/x86/realmode", Goal::Images("rmpiggy.o"), REAL_MODE),
    ("arch/x86/purgatory", Goal::Images("kexec-purgatory.o"), PURGATORY),
];

/// What a program is linked into.
#[derive(Clone, Copy)]
enum Goal {
    /// A file of its own.
    File(&'static str),
    /// Objects of the kernel whose names begin so; without one, this configuration does not have the program.
    Images(&'static str),
}

/// Folder, below the build folder, of headers that are made from the linked kernel or by a host program: any values do, since
/// both versions are compiled with the same.
const STAND_INS: &str = "lpbuild-stand-ins";
const HEADERS: &[(&str, &str)] = &[
    // arch/x86/boot/compressed/Makefile
    (
        "voffset.h",
        "#define VO__text 0\n#define VO___start_rodata 0x1000\n#define VO___bss_start 0x2000\n#define VO__end 0x3000\n",
    ),
    // arch/x86/boot/Makefile
    (
        "zoffset.h",
        "#define ZO__text 0\n#define ZO_startup_32 0\n#define ZO_startup_64 0x200\n#define ZO_efi_pe_entry 0x300\n\
         #define ZO_efi32_pe_entry 0x310\n#define ZO_efi32_stub_entry 0x320\n#define ZO_efi64_stub_entry 0x330\n\
         #define ZO_efi_stub_entry 0x340\n#define ZO_kernel_info 0x400\n#define ZO_input_data 0x500\n#define ZO__ehead 0x500\n\
         #define ZO_z_input_len 0x100\n#define ZO_z_output_len 0x4000\n#define ZO_z_min_extract_offset 0\n#define ZO__rodata 0x600\n#define ZO__data 0x700\n\
         #define ZO__etext 0x600\n#define ZO__sbat 0x680\n#define ZO__edata 0x800\n#define ZO__end 0x1000\n",
    ),
    // arch/x86/boot/Makefile (mkcpustr)
    ("cpustr.h", "static const char x86_cap_strs[] = \"\";\n"),
    // Makefile, init/Makefile
    ("generated/utsversion.h", "#define UTS_VERSION \"#1\"\n"),
    (
        "generated/compile.h",
        "#define LINUX_COMPILE_BY \"\"\n#define LINUX_COMPILE_HOST \"\"\n#define LINUX_COMPILER \"\"\n",
    ),
];

/// Finds the objects of every program this configuration has.
pub fn find(kbuild: &Kbuild<'_>, layout: &TreeLayout) -> Result<BTreeMap<String, Elsewhere>> {
    let mut all = BTreeMap::new();
    for (folder, goal, _) in PROGRAMS {
        if !kbuild.source.join(folder).is_dir() {
            continue;
        }
        let goals: Vec<String> = match goal {
            Goal::File(goal) => vec![(*goal).to_owned()],
            Goal::Images(prefix) => {
                let own = layout.objects.keys().filter(|o| o.starts_with(folder));
                own.filter(|o| o.rsplit('/').next().is_some_and(|n| n.starts_with(prefix))).cloned().collect()
            }
        };
        let mut by_folder: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for goal in &goals {
            by_folder.entry(goal.rsplit_once('/').map_or(".", |(d, _)| d)).or_default().push(goal.clone());
        }
        let mut found = BTreeMap::new();
        for (folder, goals) in by_folder {
            for (object, recipe) in kbuild.linked_from(layout, folder, &goals)? {
                // What is generated from the finished program is none of its code.
                let source = Path::new(&recipe.source).strip_prefix(kbuild.source).ok().and_then(Path::to_str);
                if let Some(source) = source.filter(|_| !layout.objects.contains_key(&object)) {
                    found.insert(object, Elsewhere { source: source.to_owned(), recipe: Some(recipe) });
                }
            }
        }
        if found.is_empty() && !goals.is_empty() {
            found = sources_below(kbuild.source, folder, layout);
        }
        all.extend(found);
    }
    // Its table is generated, and the boot program includes it.
    let decoder = BTreeSet::from(["arch/x86/lib/inat.o".to_owned()]);
    if decoder.iter().all(|o| layout.objects.contains_key(o)) {
        kbuild.recipes(layout, &decoder)?;
    }
    for folder in ["below", "generated"] {
        let folder = kbuild.build.join(STAND_INS).join(folder);
        fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, &e))?;
    }
    for (name, text) in HEADERS {
        let path = kbuild.build.join(STAND_INS).join(name);
        fs::write(&path, text).map_err(|e| Error::io(&path, &e))?;
    }
    Ok(all)
}

/// Where kbuild says nothing, everything in the folder that is no object of the kernel.
fn sources_below(source: &Path, top: &str, layout: &TreeLayout) -> BTreeMap<String, Elsewhere> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from(top)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(source.join(&folder)).into_iter().flatten().flatten() {
            let path = folder.join(entry.file_name());
            let Some(name) = path.to_str() else { continue };
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(path);
            } else if let Some(stem) = name.strip_suffix(".c").or(name.strip_suffix(".S")) {
                let object = format!("{stem}.o");
                if !layout.objects.contains_key(&object) {
                    found.insert(object, Elsewhere { source: name.to_owned(), recipe: None });
                }
            }
        }
    }
    found
}

/// What the program is that an object belongs to.
pub fn what(object: &str) -> &'static str {
    let program = PROGRAMS.iter().find(|(folder, ..)| object.starts_with(folder));
    program.map_or("code that the kernel does not execute as its own", |(.., what)| what)
}

/// Refuses the headers that belong to the vDSO by their place, unless nothing but comments changed.
pub fn own_header(path: &str, file: &FileChange) -> Option<Problem> {
    let folders = ["include/vdso/", "arch/x86/include/asm/vdso/", "arch/x86/include/asm/vdso.h"];
    if !folders.iter().any(|f| path.starts_with(f)) || same_code(file) {
        return None;
    }
    Some(Problem::new(codes::LP6301, Place::object(path), VDSO).acceptable(Accept::Outside, path))
}

/// What is told of the objects that may read a changed file.
#[derive(Clone, Copy, Debug)]
pub struct Suspects<'a> {
    /// By object: the changed files it may read.
    pub objects: &'a BTreeMap<String, BTreeSet<String>>,
    /// All changes.
    pub change: &'a SourceChange,
    /// Compilers at a time.
    pub jobs: usize,
}

/// How an object comes out.
enum Outcome {
    Same,
    /// It reads these files.
    Otherwise(BTreeSet<String>),
    /// Why nothing can be said.
    Unknown(String),
}

/// What is found of each file, and what failed.
type Findings = (BTreeMap<String, Vec<String>>, Vec<Error>);

/// Compiles both versions of the objects: what is refused, one problem for each file.
pub fn check(tree: &Tree, compiler: &Compiler<'_>, shadow: &Shadow, work: &Suspects<'_>) -> Result<Vec<Problem>> {
    let compiler = compiler.plain(&format!("-I{STAND_INS}/below -I{STAND_INS}"));
    let state: Mutex<Findings> = Mutex::default();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(work.jobs.max(1)).build();
    let pool = pool.map_err(|e| Error::new(codes::LP1000, Place::default(), e.to_string()))?;
    pool.in_place_scope(|scope| {
        for (object, files) in work.objects {
            let (compiler, lock) = (&compiler, &lock);
            scope.spawn(move |_| {
                let outcome = match tree.layout.elsewhere.get(object).and_then(|e| e.recipe.as_ref()) {
                    Some(recipe) => outcome(tree, compiler, shadow, recipe, work.change),
                    None => Ok(Outcome::Unknown("kbuild does not say how it is compiled".into())),
                };
                let (files, how) = match outcome {
                    Ok(Outcome::Same) => return,
                    Ok(Outcome::Otherwise(files)) => (files, format!("with it {object} comes out otherwise")),
                    Ok(Outcome::Unknown(why)) => (files.clone(), format!("{object} may be made from it, and {why}")),
                    Err(e) => return lock().1.push(e),
                };
                for file in files {
                    lock().0.entry(file).or_default().push(format!("{how}: {}", what(object)));
                }
            });
        }
    });
    let (found, mut failed) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failed.is_empty() {
        return Err(failed.swap_remove(0));
    }
    let problem = |(file, mut objects): (String, Vec<String>)| {
        objects.sort();
        let more = match objects.len() {
            0 | 1 => String::new(),
            n => format!(" (and {} more objects of this kind)", n - 1),
        };
        let first = objects.into_iter().next().unwrap_or_default();
        Problem::new(codes::LP6301, Place::object(&file), format!("{first}{more}")).acceptable(Accept::Outside, file)
    };
    Ok(found.into_iter().map(problem).collect())
}

fn outcome(
    tree: &Tree,
    compiler: &Compiler<'_>,
    shadow: &Shadow,
    recipe: &Recipe,
    change: &SourceChange,
) -> Result<Outcome> {
    let recipe = without_debug_info(recipe);
    let cannot = |e: Error| match e.problems.first() {
        Some(p) if [codes::LP6213, codes::LP6214].contains(&p.code) => {
            Ok(Outcome::Unknown("it cannot be compiled by itself".into()))
        }
        _ => Err(e),
    };
    let old = match compiler.old(&recipe) {
        Ok(old) => old,
        Err(e) => return cannot(e),
    };
    let stock: BTreeMap<PathBuf, &String> =
        change.files.keys().filter_map(|f| Some((tree.source.join(f).canonicalize().ok()?, f))).collect();
    let read: BTreeSet<String> =
        compiler.inputs(&old)?.iter().filter_map(|f| stock.get(f)).map(ToString::to_string).collect();
    if read.is_empty() {
        return Ok(Outcome::Same);
    }
    let new = match compiler.new_object(&recipe, shadow) {
        Ok(new) => new,
        Err(e) => return cannot(e),
    };
    let content = |p: &Path| fs::read(p).map_err(|e| Error::io(p, &e));
    Ok(if content(&old)? == content(&new)? { Outcome::Same } else { Outcome::Otherwise(read) })
}

/// Without debug information two objects are the same, byte for byte, if their code and data are.
fn without_debug_info(recipe: &Recipe) -> Recipe {
    let is_debug = |w: &&str| w.starts_with("-g") || w.starts_with("-Wa,-g") || w.starts_with("-fdebug-prefix-map");
    let flags = recipe.flags.split(' ').filter(|w| !is_debug(w)).collect::<Vec<_>>().join(" ");
    Recipe { flags, objtool: String::new(), ..recipe.clone() }
}

/// Whether nothing but comments and white space differs.
fn same_code(file: &FileChange) -> bool {
    let (Some(old), Some(new)) = (&file.old, &file.new) else { return false };
    code(old) == code(new)
}

/// The text without comments, and with one blank for each run of white space that is not in a string.
fn code(text: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    let blank = |out: &mut Vec<u8>, b: u8| {
        match out.last_mut() {
            // The end of a line ends a directive.
            Some(last) if [b' ', b'\n'].contains(last) => {
                if b == b'\n' {
                    *last = b'\n';
                }
            }
            _ => out.push(b),
        }
    };
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if rest.starts_with(b"/*") {
            let end = memchr::memmem::find(rest, b"*/").map_or(rest.len(), |at| at + 2);
            blank(&mut out, b' ');
            rest = &rest[end..];
        } else if rest.starts_with(b"//") {
            rest = &rest[memchr::memchr(b'\n', rest).unwrap_or(rest.len())..];
        } else if first == b'"' || first == b'\'' {
            let mut len = 1;
            while let Some(b) = rest.get(len) {
                len += if *b == b'\\' { 2 } else { 1 };
                if *b == first || *b == b'\n' {
                    break;
                }
            }
            let len = len.min(rest.len());
            out.extend_from_slice(&rest[..len]);
            rest = &rest[len..];
        } else {
            match first {
                b'\n' => blank(&mut out, b'\n'),
                b if b.is_ascii_whitespace() => blank(&mut out, b' '),
                b => out.push(b),
            }
            rest = tail;
        }
    }
    while out.last().is_some_and(u8::is_ascii_whitespace) {
        out.pop();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(old: &str, new: &str) -> FileChange {
        FileChange::new("include/vdso/x.h", Some(old.into()), Some(new.into()))
    }

    #[test]
    fn a_header_of_the_vdso_is_refused_unless_only_comments_change() {
        let old = "#define A 1 /* one */\nint f(void);\nchar *s = \"a  /* b */\";\n";
        for (new, refused) in [
            ("#define A 1\n\n\n// one\nint\tf(void);\nchar *s = \"a  /* b */\";\n", false),
            ("#define A 2 /* one */\nint f(void);\nchar *s = \"a  /* b */\";\n", true),
            ("#define A 1 int f(void);\nchar *s = \"a  /* b */\";\n", true),
            ("#define A 1 /* one */\nint f(void);\nchar *s = \"a /* b */\";\n", true),
            ("#define A 1 /* one\nint f(void);\nchar *s = \"a  /* b */\";\n", true),
        ] {
            let found = own_header("include/vdso/helpers.h", &change(old, new));
            assert_eq!(found.is_some(), refused, "{new}");
        }
        assert!(own_header("arch/x86/include/asm/vdso/gettimeofday.h", &change("", "int x;\n")).is_some());
        assert!(own_header("include/linux/time.h", &change("", "int x;\n")).is_none());
    }

    #[test]
    fn debug_information_is_left_out_and_nothing_else() {
        let flags = "-O2 -g -gdwarf-5 -Wa,-gdwarf-5 -fdebug-prefix-map=/a=. -fno-gcse -DX='\"-g\"'";
        let recipe = Recipe {
            object: "a.o".into(),
            source: "a.c".into(),
            compiler: "gcc".into(),
            flags: flags.into(),
            objtool: "objtool".into(),
            modules: Vec::new(),
        };
        assert_eq!(without_debug_info(&recipe).flags, "-O2 -fno-gcse -DX='\"-g\"'");
    }

    #[test]
    fn every_program_says_what_it_is() {
        assert_eq!(what("arch/x86/entry/vdso/vdso32/vclock_gettime.o"), VDSO);
        assert_eq!(what("arch/x86/boot/compressed/misc.o"), BOOT);
        assert_eq!(what("arch/x86/realmode/rm/reboot.o"), REAL_MODE);
        assert_eq!(what("arch/x86/purgatory/sha256.o"), PURGATORY);
        assert_eq!(what("drivers/firmware/efi/libstub/mem.o"), BOOT);
    }
}
