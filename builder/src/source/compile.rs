//! Objects of the stock source and of the changed one, compiled by the commands kbuild names.
//!
//! Stock objects stay in the tree's folder and are made once. A changed object is made by the same command in a shadow of
//! the source (links, with the changed files real): same flags, same relative file names, and debug information that does
//! not name the folder, so that an unchanged file gives the same bytes. Nothing is written to source or build folder.
//! Refused: a file that cannot be compiled (LP6213), one that reads a changed header past the shadow (LP6214).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;

use super::kbuild::Recipe;
use super::patch::SourceChange;
use super::tree::Tree;
use super::{authors, lines, shadow};
use crate::cache;
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::hash::digest;
use crate::holder::HolderName;
use crate::ingest;
use crate::pipeline::{self};
use crate::plan::Options;
use crate::plan::Source;
use crate::tool::{self, Log};
use crate::toolchain::Toolchain;

/// Puts every variable into a section named for it: code comes out the same, but references to data keep their names. Without
/// it the assembler makes offsets in .data and .bss of them, which an empty object (a lock class key without lockdep)
/// shares with its neighbour.
const NAMED_DATA: &str = "-fdata-sections";

/// Variables of the caller that launchers (ccache, sccache, distcc) are configured with.
const LAUNCHERS: &[&str] = &["CCACHE_", "SCCACHE_", "DISTCC_", "ICECC_"];
/// Those of them with which a launcher would call another compiler than it is told to.
const OTHER_COMPILERS: &[&str] = &["CCACHE_COMPILER", "CCACHE_PATH", "ICECC_CC", "ICECC_CXX"];

/// Makes objects of one tree.
#[derive(Debug)]
pub struct Compiler<'a> {
    tree: &'a Tree,
    toolchain: &'a Toolchain,
    /// Flags on top of the recipe's, as shell words.
    extra: String,
    /// The folder of this build.
    work: &'a Path,
    /// Where stock objects are: in the folder of the tree, unless said otherwise.
    kept: Option<&'a Path>,
    log: &'a Log,
    /// Whether unchanged lines keep their numbers.
    keep_lines: bool,
}

/// A shadow of the source with a change.
#[derive(Debug)]
pub struct Shadow {
    /// Its folder.
    pub source: PathBuf,
    /// Paths of the changed files in the stock source, as they really are.
    stock: BTreeSet<PathBuf>,
    /// Folders that are real.
    real: BTreeSet<PathBuf>,
}

impl<'a> Compiler<'a> {
    /// `flags` are the user's; `work` is a folder for what this build makes.
    pub fn new(tree: &'a Tree, toolchain: &'a Toolchain, flags: &[String], work: &'a Path, log: &'a Log) -> Self {
        let extra = format!("{NAMED_DATA} {}", flags.join(" "));
        Self { tree, toolchain, extra, work, kept: None, log, keep_lines: true }
    }

    /// With nothing but `flags` and without `#line`: what someone else's build would have made of the source.
    pub fn foreign(tree: &'a Tree, toolchain: &'a Toolchain, flags: &[String], work: &'a Path, log: &'a Log) -> Self {
        Self { tree, toolchain, extra: flags.join(" "), work, kept: None, log, keep_lines: false }
    }

    /// The same with stock objects in another folder, where that of the tree is somebody else's.
    #[must_use]
    pub fn keeping_in(self, folder: &'a Path) -> Self {
        Self { kept: Some(folder), ..self }
    }

    /// The same for objects of other programs: nothing but `flags` on top of the recipe's.
    pub fn plain(&self, flags: &str) -> Self {
        Self { extra: flags.to_owned(), keep_lines: false, ..*self }
    }

    /// The shadow of `change`; objects in `folders` can be compiled from it.
    pub fn shadow(&self, change: &SourceChange, folders: &BTreeSet<PathBuf>) -> Result<Shadow> {
        let source = self.work.join("source");
        cache::empty_dir(&source)?;
        let folder = |p: &str| PathBuf::from(p.rsplit_once('/').map_or("", |(d, _)| d));
        let real: BTreeSet<PathBuf> = change.files.keys().map(|p| folder(p)).chain(folders.iter().cloned()).collect();
        shadow::mirror(&self.tree.source, &source, &real, &|_| false)?;
        let mut stock = BTreeSet::new();
        for (path, file) in &change.files {
            let Some(new) = &file.new else { continue };
            let content = if self.keep_lines { numbered(path, file.old.as_deref(), new) } else { new.clone() };
            shadow::replace(&source, path, &content)?;
            stock.extend(self.tree.source.join(path).canonicalize().ok());
        }
        Ok(Shadow { source, stock, real })
    }

    /// The stock object.
    pub fn old(&self, recipe: &Recipe) -> Result<PathBuf> {
        let object = self.old_path(recipe);
        if !self.is_fresh(&object) {
            self.stock_to(recipe, &object)?;
        }
        Ok(object)
    }

    fn old_path(&self, recipe: &Recipe) -> PathBuf {
        let extra = format!("{}{}", self.extra, self.debug_flags(&recipe.flags));
        let Recipe { source, flags, objtool, .. } = recipe;
        let made_by = &self.toolchain.command_key;
        let key = digest(format!("{source}\n{flags}\n{objtool}\n{extra}\n{made_by}").as_bytes());
        let kept = self.kept.map_or_else(|| self.tree.build.join("lpbuild-objects"), Path::to_path_buf);
        kept.join(key.get(..16).unwrap_or(&key)).join(&recipe.object)
    }

    /// Where both versions of an object are, if they were compiled.
    pub fn both(&self, recipe: &Recipe) -> [PathBuf; 2] {
        [self.old_path(recipe), self.new_path(recipe)]
    }

    fn new_path(&self, recipe: &Recipe) -> PathBuf {
        self.work.join("new").join(&recipe.object)
    }

    /// Whether an object is there and none of the files it was made from has changed since.
    fn is_fresh(&self, object: &Path) -> bool {
        let time = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
        let Some(made) = time(object) else { return false };
        let Ok(text) = fs::read_to_string(cache::sibling(object, ".d")) else { return false };
        inputs_of(&text).all(|file| time(&self.tree.build.join(file)).is_some_and(|t| t <= made))
    }

    /// The stock object, made anew in another place.
    pub fn stock_to(&self, recipe: &Recipe, object: &Path) -> Result<()> {
        self.compile(recipe, &recipe.source, &recipe.flags, object)
    }

    /// What an object of a source file without content would be: the old side of a file that a patch adds.
    pub fn empty(&self, recipe: &Recipe) -> Result<PathBuf> {
        let empty = self.work.join("empty.c");
        fs::write(&empty, "").map_err(|e| Error::io(&empty, &e))?;
        let object = self.work.join("old").join(&recipe.object);
        self.compile(recipe, &empty.to_string_lossy(), &recipe.flags, &object)?;
        Ok(object)
    }

    /// The object with the change.
    pub fn new_object(&self, recipe: &Recipe, shadow: &Shadow) -> Result<PathBuf> {
        let object = self.new_path(recipe);
        let (source, flags) = self.moved(recipe, shadow);
        self.compile(recipe, &source, &flags, &object)?;
        for read in self.inputs(&object)? {
            if shadow.stock.contains(&read) {
                let what = format!(
                    "the compiler read the unchanged {}: it is included by a path that leads around the change",
                    read.display()
                );
                return Err(Error::new(codes::LP6214, Place::object(&recipe.object), what));
            }
        }
        Ok(object)
    }

    /// What the compiler reads of the stock source, behind the preprocessor, and the files it is from.
    pub fn stock_unit(&self, recipe: &Recipe) -> Result<Preprocessed> {
        self.preprocess(recipe, &recipe.source, &recipe.flags, "old")
    }

    /// The same with the change.
    pub fn new_unit(&self, recipe: &Recipe, shadow: &Shadow) -> Result<Preprocessed> {
        let (source, flags) = self.moved(recipe, shadow);
        self.preprocess(recipe, &source, &flags, "new")
    }

    fn preprocess(&self, recipe: &Recipe, source: &str, flags: &str, side: &str) -> Result<Preprocessed> {
        let made = self.work.join("units").join(side).join(&recipe.object);
        let folder = made.parent().unwrap_or(self.work);
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
        let depends = cache::sibling(&made, ".d");
        let flags = dependencies_to(flags, &depends);
        // With a counter, one use more or less would change every later one.
        let counter = "-w -D__COUNTER__=0";
        let (gcc, extra) = (&self.toolchain.command, &self.extra);
        let line = format!("{gcc} {flags} {extra} {counter} -E -P -o {} {source}", made.display());
        let mut sh = tool::command("sh");
        sh.args(["-c", &line]).current_dir(&self.tree.build);
        with_launcher_settings(&mut sh);
        self.log.run(&mut sh, codes::LP6213)?;
        let text = fs::read(&made).map_err(|e| Error::io(&made, &e))?;
        let inputs = self.inputs(&made)?.into_iter().collect();
        for file in [&made, &depends] {
            fs::remove_file(file).map_err(|e| Error::io(file, &e))?;
        }
        Ok(Preprocessed { text, inputs })
    }

    /// Source and flags of a recipe, in the shadow.
    fn moved(&self, recipe: &Recipe, shadow: &Shadow) -> (String, String) {
        let (from, to) = (self.tree.source.to_string_lossy(), shadow.source.to_string_lossy());
        let moved = |text: &str| text.replace(from.as_ref(), to.as_ref());
        // Behind all other folders: what the kernel has goes before.
        let flags = format!("{} -I{}", moved(&recipe.flags), authors::folder(self.work).display());
        (moved(&recipe.source), flags)
    }

    /// Whether the stock object was made from one of these files (paths relative to the tree).
    pub fn reads(&self, object: &Path, files: &BTreeSet<PathBuf>) -> Result<bool> {
        Ok(self.inputs(object)?.iter().any(|f| files.contains(f)))
    }

    /// Every file the compiler read, as it really is.
    pub fn inputs(&self, object: &Path) -> Result<Vec<PathBuf>> {
        let path = cache::sibling(object, ".d");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, &e))?;
        Ok(inputs_of(&text).filter_map(|w| self.tree.build.join(w).canonicalize().ok()).collect())
    }

    /// What the recipe lacks for the whole debug information, which types are compared by. It changes no code.
    fn debug_flags(&self, flags: &str) -> String {
        let mut more = String::new();
        if !self.keep_lines {
            return more;
        }
        let has = |flag: &str| flags.split_whitespace().any(|w| w == flag);
        let level = flags.split_whitespace().any(|w| w == "-g" || w.starts_with("-gdwarf") || w.starts_with("-ggdb"));
        for (missing, flag) in [
            (!level, " -g"),
            // CONFIG_DEBUG_INFO_SPLIT has it in another file, CONFIG_DEBUG_INFO_REDUCED only what the unit defines itself.
            (has("-gsplit-dwarf"), " -gno-split-dwarf"),
            (has("-femit-struct-debug-baseonly"), " -femit-struct-debug-detailed=any"),
        ] {
            if missing {
                more.push_str(flag);
            }
        }
        more
    }

    /// Runs compiler and objtool; the object is in its place only when both are done.
    fn compile(&self, recipe: &Recipe, source: &str, flags: &str, object: &Path) -> Result<()> {
        let folder = object.parent().unwrap_or(self.work);
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
        let temp =
            tempfile::Builder::new().prefix(".lpbuild-").tempdir_in(folder).map_err(|e| Error::io(folder, &e))?;
        let name = object.file_name().unwrap_or_default();
        let made = temp.path().join(name);
        let depends = cache::sibling(&made, ".d");
        let flags = dependencies_to(flags, &depends);
        let debug = self.debug_flags(&flags);
        let mut line =
            format!("{} {flags} {}{debug} -c -o {} {source}", self.toolchain.command, self.extra, made.display());
        if !recipe.objtool.is_empty() {
            line.push_str(&format!(" && {} {} 2>&1", recipe.objtool, made.display()));
        }
        let mut sh = tool::command("sh");
        sh.args(["-c", &line]).current_dir(&self.tree.build);
        with_launcher_settings(&mut sh);
        let said = self.log.run(&mut sh, codes::LP6213).map_err(|mut e| {
            for p in &mut e.problems {
                p.place = Place::object(&recipe.object);
            }
            e
        })?;
        for line in said.lines() {
            self.log.note(format!("    {line}"));
        }
        if has_option(&recipe.objtool, "--orc") && lacks_unwinding(&made)? {
            let what = format!("objtool gave up and left it without its tables:\n{said}");
            return Err(Error::new(codes::LP6213, Place::object(&recipe.object), what));
        }
        // The list of inputs first: an object without one would not be usable.
        for (from, to) in [(&depends, &cache::sibling(object, ".d")), (&made, &object.to_path_buf())] {
            fs::rename(from, to).map_err(|e| Error::io(to, &e))?;
        }
        Ok(())
    }
}

/// A source behind the preprocessor.
#[derive(Debug)]
pub struct Preprocessed {
    /// Without comments and line markers.
    pub text: Vec<u8>,
    /// Every file that was read, as it really is.
    pub inputs: BTreeSet<PathBuf>,
}

impl Shadow {
    /// A copy in which everything is real; `stock` are the files that must not be read in the place of its own.
    pub fn of_copy(source: &Path, stock: BTreeSet<PathBuf>) -> Self {
        Self { source: source.to_path_buf(), stock, real: BTreeSet::new() }
    }

    /// Whether one of these files, as they really are, is one that the change replaces.
    pub fn is_led_around(&self, inputs: &BTreeSet<PathBuf>) -> bool {
        !self.stock.is_disjoint(inputs)
    }

    /// Whether objects of `folder` can be compiled from it.
    pub fn covers(&self, folder: &Path) -> bool {
        self.real.contains(folder)
    }
}

/// What became of the objects.
#[derive(Debug, Default)]
pub struct CompiledPairs {
    /// Objects compiled in both versions, by name.
    pub compiled: Vec<String>,
    /// Those that differ in more than debug information, by name.
    pub differing: Vec<Source>,
}

/// Compiles both versions of every object, of the supposed ones only those that really read a changed file, with `jobs`
/// compilers at a time. An object that comes out the same is dropped at once. `done` is called after each.
pub fn pairs(
    compiler: &Compiler<'_>,
    shadow: &Shadow,
    work: &Compilation<'_>,
    jobs: usize,
    options: &Options,
    done: &(dyn Fn(&str) + Sync),
) -> Result<CompiledPairs> {
    let state: Mutex<(CompiledPairs, Vec<Error>)> = Mutex::default();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs.max(1)).build();
    let pool = pool.map_err(|e| Error::new(codes::LP1000, Place::default(), e.to_string()))?;
    let one = |recipe: &Recipe| -> Result<()> {
        let name = &recipe.object;
        let old = || if work.added.contains(name) { compiler.empty(recipe) } else { compiler.old(recipe) };
        let otherwise = work.otherwise.get(name);
        let new = || compiler.new_object(otherwise.unwrap_or(recipe), shadow);
        let (old_path, new_path) = if work.supposed.contains(name) && otherwise.is_none() {
            let old = old()?;
            if !compiler.reads(&old, work.changed)? {
                return Ok(());
            }
            (old, new()?)
        } else {
            let (old, new) = rayon::join(old, new);
            (old?, new?)
        };
        let read = |p: &Path| fs::read(p).map_err(|e| Error::io(p, &e));
        // Of an object in several modules it is any of them.
        let modules = otherwise.unwrap_or(recipe).modules.first();
        let holder = modules.map_or(HolderName::Vmlinux, |m| HolderName::of_file(m));
        let source =
            Source { name: name.clone(), old: read(&old_path)?, new: read(&new_path)?, old_path, new_path, holder };
        let same = source.old == source.new || (work.recipes.len() > 1 && !pipeline::differs(&source, options)?);
        let mut state = lock();
        state.0.compiled.push(name.clone());
        if !same {
            state.0.differing.push(source);
        }
        Ok(())
    };
    pool.in_place_scope(|scope| {
        for recipe in work.recipes.values() {
            let (one, lock) = (&one, &lock);
            scope.spawn(move |_| {
                // The first failure ends the build; what has not begun is not begun any more.
                if lock().1.is_empty() {
                    match one(recipe) {
                        Ok(()) => done(&recipe.object),
                        Err(e) => lock().1.push(e),
                    }
                }
            });
        }
    });
    let (mut pairs, mut failed) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failed.is_empty() {
        return Err(failed.swap_remove(0));
    }
    pairs.compiled.sort();
    pairs.differing.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pairs)
}

/// What is to be compiled.
#[derive(Clone, Copy, Debug)]
pub struct Compilation<'a> {
    /// How, by object: as the kernel's own was, or for an added one as it will be.
    pub recipes: &'a BTreeMap<String, Recipe>,
    /// How the new one is compiled, where that is another way.
    pub otherwise: &'a BTreeMap<String, Recipe>,
    /// Objects of which it is only supposed that they read a changed file.
    pub supposed: &'a BTreeSet<String>,
    /// Objects that only the changed source has.
    pub added: &'a BTreeSet<String>,
    /// Changed files in the stock source, as they really are.
    pub changed: &'a BTreeSet<PathBuf>,
}

fn has_option(command: &str, option: &str) -> bool {
    command.split_whitespace().any(|w| w == option)
}

/// Has an object code, but not one unwind entry? objtool makes some for each code section that is not for itself to read or
/// replaced at boot (orc_create of tools/objtool/orc_gen.c); where it gives up it only warns (`check` of
/// tools/objtool/check.c), and nothing it makes is there: neither unwinding nor the sites of returns and calls.
fn lacks_unwinding(object: &Path) -> Result<bool> {
    let data = fs::read(object).map_err(|e| Error::io(object, &e))?;
    let image = ingest::read(&object.to_string_lossy(), &data)?;
    let apart = |n: &str| [".altinstr", ".discard"].iter().any(|p| n.starts_with(p));
    let code = image.sections.iter().any(|s| s.is_alloc() && s.is_exec() && s.size > 0 && !apart(&s.name));
    Ok(code && !image.sections.iter().any(|s| s.name == ".orc_unwind_ip" && s.size > 0))
}

/// The files that a list of what the compiler read names.
fn inputs_of(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|w| *w != "\\" && !w.ends_with(':'))
}

/// The new content, with every unchanged line keeping its old number.
pub(super) fn numbered(path: &str, old: Option<&[u8]>, new: &[u8]) -> Vec<u8> {
    let is_c = path.ends_with(".c") || path.ends_with(".h");
    match (old.map(std::str::from_utf8), std::str::from_utf8(new)) {
        (Some(Ok(old)), Ok(new)) if is_c => lines::keep_lines(old, new).into_bytes(),
        _ => new.to_vec(),
    }
}

/// The flags with another file for the list of what the compiler reads.
fn dependencies_to(flags: &str, file: &Path) -> String {
    const OPTION: &str = "-Wp,-MMD,";
    let words = flags
        .split(' ')
        .map(|w| if w.starts_with(OPTION) { format!("{OPTION}{}", file.display()) } else { w.to_owned() });
    words.collect::<Vec<_>>().join(" ")
}

fn with_launcher_settings(c: &mut Command) {
    for (name, value) in std::env::vars_os() {
        let is_launchers = |n: &str| LAUNCHERS.iter().any(|l| n.starts_with(l)) && !OTHER_COMPILERS.contains(&n);
        if name.to_str().is_some_and(is_launchers) {
            c.env(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_list_of_inputs_is_redirected() {
        let flags = "-Wp,-MMD,net/.x.o.d -DKBUILD_MODFILE='\"net/x\"' -Wp,-DX";
        assert_eq!(
            dependencies_to(flags, Path::new("/w/x.o.d")),
            "-Wp,-MMD,/w/x.o.d -DKBUILD_MODFILE='\"net/x\"' -Wp,-DX"
        );
    }
}
