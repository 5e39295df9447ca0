//! External modules: what `make -C HEADERS M=DIR` builds from sources beside the kernel's (Documentation/kbuild/modules.rst), as DKMS does.
//!
//! Input: the folder, the headers, the patch. Output: pairs of objects as of the kernel's own modules, and the files of the modules that
//! run. The folder is only read: kbuild is asked about two copies of it, as it is and with the change, so that whatever the Makefiles say
//! and generate is compared as well. Refused: a folder that kbuild builds no module from (LP6216), objects that go or move (LP6306),
//! generated files that come out otherwise (LP6305), two modules of one name or none that is installed (LP3009), a `dkms.conf` by which
//! other objects may be made (LP6217).

mod copy;
mod dkms;
mod files;
mod own_make;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use self::copy::Listing;
use self::files::Files;
use super::Progress;
use super::compile::{self, Compilation, Compiler, Shadow};
use super::kbuild::{ExternalFolder, Kbuild, ObjectPart, Recipe, TreeLayout};
use super::locate::TargetKernel;
use super::outline;
use super::pairs::{BuildOptions, WorkDir, shared};
use super::patch::SourceChange;
use super::touched::Unused;
use super::tree::Tree;
use super::{diagnostics, includes};
use crate::codes;
use crate::config::{Config, ExternalModules};
use crate::error::{Error, Place, Problem, Result, refuse};
use crate::holder::HolderName;
use crate::kernel::Symvers;
use crate::plan::{Options, Source};
use crate::tool::{self, Log};

/// Endings of what the compiler reads.
const TEXTS: &[&str] = &[".c", ".h", ".S"];

/// Everything such a build works on.
#[derive(Clone, Copy, Debug)]
pub struct ExternalJob<'a> {
    /// The kernel; of its parts the headers matter.
    pub target: &'a TargetKernel,
    /// Sources and files of the modules.
    pub modules: &'a ExternalModules,
    /// What the patches change in the sources.
    pub change: &'a SourceChange,
    /// What was asked for.
    pub config: &'a Config,
    /// How to go about it.
    pub how: &'a BuildOptions,
    /// Where commands are noted.
    pub log: &'a Log,
    /// Who is told.
    pub progress: &'a dyn Progress,
}

/// What came out.
#[derive(Debug)]
pub struct ExternalPairs {
    /// Names of the objects that were compiled in both versions.
    pub objects: Vec<String>,
    /// Those that differ.
    pub sources: Vec<Source>,
    /// The files of the modules that have some of them, and of other external ones that they import from.
    pub files: BTreeMap<HolderName, PathBuf>,
    /// Changed files without a part in any module.
    pub unused: Vec<Unused>,
}

/// One of the two copies and what kbuild says of it.
struct Asked {
    layout: BTreeMap<String, ObjectPart>,
    recipes: BTreeMap<String, Recipe>,
}

/// Refuses what is no patch of a running module, whatever the Makefiles say.
pub fn screen(change: &SourceChange) -> Result<()> {
    let mut problems = Vec::new();
    for (path, file) in &change.files {
        let found = match path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("rs") => Some((codes::LP6304, "Rust source")),
            Some("lds") => Some((codes::LP6304, "a linker script decides where everything is")),
            Some("c") if outline::only_init(file) => Some((
                codes::LP6302,
                "every changed line is in __init or __exit code, which is gone once the module is loaded",
            )),
            _ => None,
        };
        problems.extend(found.map(|(code, what)| Problem::new(code, Place::object(path), what)));
    }
    refuse(problems)
}

/// Both versions of every object that the change concerns. What the modules export to each other is added to `exports`.
pub fn compile(job: &ExternalJob<'_>, exports: &mut Symvers) -> Result<ExternalPairs> {
    let ExternalJob { target, modules, change, config, how, log, progress } = *job;
    let dir = &modules.source;
    let call = dkms::call(dir, &target.headers, &target.release)?;
    let work = WorkDir::make(&format!("{}\n{}\n{}", target.headers.display(), dir.display(), change.digest()))?;
    let (stock, changed) = (work.path.join("stock"), work.path.join("source"));
    progress.status(&format!("asking kbuild for the objects of {}", dir.display()));
    let listing = Listing::of(dir)?;
    for copy in [&stock, &changed] {
        listing.copy(dir, copy)?;
    }
    copy::make_change(&changed, change)?;
    // The change may be of the file that says it, or of the folder's own Makefile.
    let call_new = if dkms::is_in(dir) || dkms::is_in(&changed) {
        dkms::call(&changed, &target.headers, &target.release)?
    } else {
        call.clone()
    };
    let variables = call.variables(dir, &stock, &target.headers, &target.release, log)?;
    let variables_new = call_new.variables(dir, &changed, &target.headers, &target.release, log)?;
    for (variables, side) in [(&variables, ""), (&variables_new, ", changed,")] {
        if !variables.is_empty() {
            log.note(format!("    {}{side} gives make {}", dkms::file(dir).display(), variables.join(" ")));
        }
    }
    let (old, mut new) = (ask(job, &stock, &variables)?, ask(job, &changed, &variables_new)?);
    copy::compare_generated(&listing, &stock, &changed, change)?;
    for recipe in new.recipes.values_mut() {
        let (from, to) = (changed.to_string_lossy(), stock.to_string_lossy());
        for text in [&mut recipe.flags, &mut recipe.source, &mut recipe.objtool] {
            *text = text.replace(from.as_ref(), &to);
        }
    }
    let names = module_names(&old, &new)?;
    let sources = listing.named(TEXTS);
    let mut files = Files::of(&modules.files, &target.modules, &names)?;
    let built_in = files.built_in(&names, &sources).unwrap_or_else(|| dir.display().to_string());
    log.note(format!("    the modules say that they were built in {built_in}, or nothing"));

    let Concerned { mut recipes, mut otherwise, supposed, added } = concerned(job, &stock, &listing, &old, &new)?;
    for recipe in recipes.values_mut().chain(otherwise.values_mut()) {
        named_as_built(recipe, &stock, &built_in);
    }
    // Only now, since kbuild was to see the files as the patch has them.
    for (path, file) in &change.files {
        if let Some(new) = &file.new {
            copy::put(&changed, path, &compile::numbered(path, file.old.as_deref(), new))?;
        }
    }
    let tree = Tree { source: stock.clone(), build: target.headers.clone(), layout: TreeLayout::default() };
    let kept = work.path.join("old");
    let compiler = Compiler::new(&tree, &target.toolchain, &config.flags, &work.path, log).keeping_in(&kept);
    let real = |root: &Path| -> BTreeSet<PathBuf> {
        change.files.keys().filter_map(|p| root.join(p).canonicalize().ok()).collect()
    };
    let read = real(&stock);
    let shadow = Shadow::of_copy(&changed, read.union(&real(dir)).cloned().collect());
    progress.objects(recipes.len());
    let todo =
        Compilation { recipes: &recipes, otherwise: &otherwise, supposed: &supposed, added: &added, changed: &read };
    let options = Options { lines_kept: true, ..config.options.clone() };
    let pairs = compile::pairs(&compiler, &shadow, &todo, how.jobs, &options, &|name| progress.object(name));
    let pairs = pairs.map_err(|e| diagnostics::in_patch(e, &shadow.source, change))?;
    let of = |s: &Source| otherwise.get(&s.name).or_else(|| recipes.get(&s.name));
    refuse(pairs.differing.iter().filter_map(|s| shared(of(s)?)).collect())?;
    let unused = unused(job, &compiler, &todo, &pairs.compiled, [&stock, &changed]);
    let holders: BTreeSet<HolderName> = pairs.differing.iter().map(|s| s.holder.clone()).collect();
    let files = files.with_exporters(holders, exports)?;
    Ok(ExternalPairs { objects: pairs.compiled, sources: pairs.differing, files, unused })
}

/// What kbuild says of a copy; what has to be generated before anything is compiled is made in it.
fn ask(job: &ExternalJob<'_>, copy: &Path, variables: &[String]) -> Result<Asked> {
    let ExternalJob { target, modules, log, .. } = *job;
    let external = Some(ExternalFolder { dir: copy, variables });
    let kbuild = Kbuild { source: &target.headers, build: &target.headers, external, log };
    let args = ["ARCH=x86".to_owned(), format!("CC={}", target.toolchain.compiler.display())];
    let layout = kbuild.layout(&args)?;
    let objects: BTreeSet<String> =
        layout.objects.iter().filter(|(_, part)| **part == ObjectPart::Module).map(|(o, _)| o.clone()).collect();
    if objects.is_empty() {
        let what = "its Makefile or Kbuild names no module (obj-m)";
        return Err(Error::new(codes::LP6216, Place::object(modules.source.display().to_string()), what));
    }
    let mut recipes = kbuild.recipes(&layout, &objects)?;
    recipes.retain(|_, r| !r.modules.is_empty());
    // Debian's headers have an objtool for each architecture, behind one that asks for this variable.
    let plain = |arch: &&str| arch.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    if let Some(arch) = layout.variable("SRCARCH").filter(plain) {
        for recipe in recipes.values_mut().filter(|r| !r.objtool.is_empty()) {
            recipe.objtool = format!("SRCARCH={arch} {}", recipe.objtool);
        }
    }
    Ok(Asked { layout: layout.objects, recipes })
}

/// The modules of both copies, each of which must have a name of its own.
fn module_names(old: &Asked, new: &Asked) -> Result<BTreeSet<HolderName>> {
    let mut paths: BTreeMap<HolderName, &str> = BTreeMap::new();
    for module in old.recipes.values().chain(new.recipes.values()).flat_map(|r| &r.modules) {
        let name = HolderName::of_file(module);
        match paths.insert(name.clone(), module) {
            Some(other) if other != module => {
                let what =
                    format!("{other} and {module} of the source are both called {name}; which one runs is not known");
                return Err(Error::new(codes::LP3009, Place::object(name.as_str()), what));
            }
            _ => {}
        }
    }
    Ok(paths.into_keys().collect())
}

/// How what is concerned is compiled, as in [`Compilation`].
#[derive(Default)]
struct Concerned {
    recipes: BTreeMap<String, Recipe>,
    otherwise: BTreeMap<String, Recipe>,
    supposed: BTreeSet<String>,
    added: BTreeSet<String>,
}

/// Objects whose source is changed or whose command is another; and, when anything is changed that others can include, all objects:
/// the lists of what the compiler read tell which of them are concerned.
fn concerned(job: &ExternalJob<'_>, stock: &Path, listing: &Listing, old: &Asked, new: &Asked) -> Result<Concerned> {
    let ExternalJob { change, how, .. } = *job;
    let mut found = Concerned::default();
    let mut problems = Vec::new();
    for (object, recipe) in &old.recipes {
        let gone = || Problem::new(codes::LP6306, Place::object(object), "with the change it is not built any more");
        match new.recipes.get(object) {
            Some(after) if after.modules != recipe.modules => {
                let what = "with the change it moves to another module";
                problems.push(Problem::new(codes::LP6306, Place::object(object), what));
            }
            Some(after) if after != recipe => {
                found.recipes.insert(object.clone(), recipe.clone());
                found.otherwise.insert(object.clone(), after.clone());
            }
            None => problems.push(gone()),
            Some(_) => {}
        }
    }
    // Without a rule of kbuild's for compiling them: prebuilt ones.
    let lost = old.layout.keys().filter(|o| !new.layout.contains_key(*o) && !old.recipes.contains_key(*o));
    problems.extend(
        lost.map(|o| Problem::new(codes::LP6306, Place::object(o), "with the change it is not linked any more")),
    );
    refuse(problems)?;
    for (object, recipe) in new.recipes.iter().filter(|(o, _)| !old.recipes.contains_key(*o)) {
        found.added.insert(object.clone());
        found.recipes.insert(object.clone(), recipe.clone());
    }
    let source_of = |recipe: &Recipe| Path::new(&recipe.source).strip_prefix(stock).ok().map(Path::to_path_buf);
    let own: BTreeMap<PathBuf, &String> = old.recipes.iter().filter_map(|(o, r)| Some((source_of(r)?, o))).collect();
    let texts = listing.named(&[""]).into_iter().map(PathBuf::from).chain(listing.made_in(stock)?);
    let included = included(stock, texts);
    let mut all = how.compile_all || included.is_none();
    let included = included.unwrap_or_default();
    for path in change.files.keys() {
        let name = path.rsplit('/').next().unwrap_or(path);
        match own.get(Path::new(path)) {
            Some(object) => {
                let own = old.recipes.get(*object).map(|recipe| ((*object).clone(), recipe.clone()));
                found.recipes.extend(own);
            }
            None => all = true,
        }
        all |= included.contains(name);
    }
    if all {
        for (object, recipe) in &old.recipes {
            if !found.recipes.contains_key(object) {
                found.supposed.insert(object.clone());
                found.recipes.insert(object.clone(), recipe.clone());
            }
        }
    }
    Ok(found)
}

/// The names of files, without folders, that any file includes; nothing where a macro says which.
fn included(root: &Path, texts: impl Iterator<Item = PathBuf>) -> Option<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for path in texts {
        for name in includes::names(&fs::read(root.join(path)).ok()?)? {
            found.extend(name.rsplit('/').next().map(str::to_owned));
        }
    }
    Some(found)
}

/// The names that messages and debug information have for the files: those the module that runs was built with.
fn named_as_built(recipe: &mut Recipe, copy: &Path, built_in: &str) {
    let copy = copy.display();
    // Since 6.13 kbuild makes them relative itself.
    if !recipe.flags.contains(&format!("-fmacro-prefix-map={copy}/=")) {
        // What a file says is a word for the compiler, and nothing for the shell.
        let map = tool::quote(&format!("-fmacro-prefix-map={copy}/={built_in}/"));
        recipe.flags.push_str(&format!(" {map}"));
    }
    recipe.flags.push_str(&format!(" -fdebug-prefix-map={copy}/="));
}

/// Changed files that the compiler read for no object of either version.
fn unused(
    job: &ExternalJob<'_>,
    compiler: &Compiler<'_>,
    todo: &Compilation<'_>,
    compiled: &[String],
    copies: [&Path; 2],
) -> Vec<Unused> {
    let mut read = BTreeSet::new();
    for recipe in compiled.iter().filter_map(|name| todo.recipes.get(name)) {
        for object in compiler.both(recipe) {
            read.extend(compiler.inputs(&object).unwrap_or_default());
        }
    }
    let why = "the compiler read it for no object of a module".to_owned();
    let is_read =
        |path: &str| copies.iter().any(|c| c.join(path).canonicalize().is_ok_and(|real| read.contains(&real)));
    // Of those that the compiler never reads, the Makefiles are among.
    let by_make = !todo.otherwise.is_empty() || !todo.added.is_empty();
    let is_text = |path: &str| TEXTS.iter().any(|e| path.ends_with(e));
    let unread = job.change.files.keys().filter(|path| !is_read(path) && (!by_make || is_text(path)));
    unread.map(|file| Unused { file: file.clone(), why: why.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_of_its_folder_is_nothing_for_the_shell() {
        let mut recipe = Recipe {
            object: "a.o".into(),
            source: "/w/a.c".into(),
            compiler: "gcc".into(),
            flags: "-O2".into(),
            objtool: String::new(),
            modules: Vec::new(),
        };
        named_as_built(&mut recipe, Path::new("/w"), "/b $(touch x)");
        assert_eq!(recipe.flags, "-O2 '-fmacro-prefix-map=/w/=/b $(touch x)/' -fdebug-prefix-map=/w/=");
    }

    #[test]
    fn a_name_that_a_macro_computes_may_be_any() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            fs::write(dir.path().join("a.c"), text).unwrap();
            included(dir.path(), [PathBuf::from("a.c")].into_iter())
        };
        assert_eq!(of("#include <sub/b.h>\n# include \"c.c\"\n").unwrap(), ["b.h", "c.c"].map(str::to_owned).into());
        for computed in ["#include WHICH\n", "#include which\n", "#include FILE2\n", "#include F(x)\n", "#include\tX\n"]
        {
            assert_eq!(of(computed), None, "{computed}");
        }
        assert_eq!(included(dir.path(), [PathBuf::from("gone.c")].into_iter()), None);
    }
}
