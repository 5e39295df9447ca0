//! What the kernel's own build system says about a prepared tree: which objects the kernel consists of, and how each is
//! compiled.
//!
//! kbuild itself is asked, by two small makefiles (templates/kbuild-*.mk) that include its own: no Makefile of the kernel is
//! interpreted here. [`TreeLayout`] is made once per tree; a [`Recipe`] is asked for again each time, which takes about 20 ms
//! per folder since nothing is compiled. Refused: answers that are not understood (LP6212).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::codes;
use crate::error::{Error, Place, Result};
use crate::tool::{self, Log};

const TOP: &str = include_str!("../../../templates/kbuild-top.mk");
const DIR: &str = include_str!("../../../templates/kbuild-dir.mk");

/// Where an object of the configuration ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectPart {
    /// In vmlinux.
    Builtin,
    /// In a module.
    Module,
}

/// The objects of a configured kernel, and what kbuild exports to the Makefiles of its folders.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TreeLayout {
    /// Every object, by path relative to the tree.
    pub objects: BTreeMap<String, ObjectPart>,
    /// Objects that the Makefile of another folder names (`ss/services.o` of security/selinux, `../../../virt/kvm/vfio.o` of
    /// arch/x86/kvm): that folder, and the name kbuild has for the object.
    #[serde(default)]
    named_by: BTreeMap<String, (String, String)>,
    /// Source files that are included by others.
    #[serde(default)]
    pub included_sources: BTreeSet<String>,
    /// Objects of programs that the kernel contains or is started by, without being part of its own code.
    #[serde(default)]
    pub elsewhere: BTreeMap<String, Elsewhere>,
    /// Sources of programs that run while the kernel is built, most of which write other sources.
    #[serde(default)]
    pub host_sources: BTreeSet<String>,
    /// Makefiles of the source, and the folders that kbuild reads them for.
    #[serde(default)]
    pub read_for: BTreeMap<String, BTreeSet<String>>,
    /// Compiler flags a folder adds for itself and all folders below.
    inherited: BTreeMap<String, (String, String)>,
    /// Exported variables.
    variables: BTreeMap<String, String>,
}

/// How one object is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// Relative to the tree.
    pub object: String,
    /// Source file as the compiler is given it: absolute below the source, or relative to the build folder when generated.
    pub source: String,
    /// The compiler, perhaps behind a launcher, as shell words.
    pub compiler: String,
    /// Its flags as shell words.
    pub flags: String,
    /// objtool with its arguments as shell words, without the object; empty when it is not run.
    pub objtool: String,
    /// The modules it is linked into, each by the path of its file without `.ko`: `fs/binfmt_misc`.
    #[serde(default)]
    pub modules: Vec<String>,
}

impl Recipe {
    /// The module it is part of, if it is one.
    pub fn modfile(&self) -> Option<&str> {
        match &self.modules[..] {
            [one] => Some(one),
            _ => None,
        }
    }
    /// The names of the modules it is part of.
    pub fn module_names(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().filter_map(|m| m.rsplit('/').next())
    }
}

/// An object that is not part of the kernel's own code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Its source file, relative to the tree.
    pub source: String,
    /// How it is compiled, if kbuild says.
    pub recipe: Option<Recipe>,
}

/// The source of external modules.
#[derive(Clone, Copy, Debug)]
pub struct ExternalFolder<'a> {
    /// What `M=` names.
    pub dir: &'a Path,
    /// What make is given besides: `NAME=VALUE`.
    pub variables: &'a [String],
}

/// A tree to ask about: its source (or a copy with changes) and its build folder.
#[derive(Clone, Copy, Debug)]
pub struct Kbuild<'a> {
    /// The kernel source.
    pub source: &'a Path,
    /// The prepared build folder.
    pub build: &'a Path,
    /// A folder with the source of external modules, which the kernel's own is asked about (`M=`): names of objects are relative to it.
    pub external: Option<ExternalFolder<'a>>,
    /// Where commands are noted.
    pub log: &'a Log,
}

impl Kbuild<'_> {
    /// Asks for every folder. `make_args` are those the tree was prepared with.
    pub fn layout(&self, make_args: &[String]) -> Result<TreeLayout> {
        let scratch = self.scratch()?;
        let out = scratch.path();
        let mut make = tool::command("make");
        make.arg("-C").arg(self.build).arg("-f").arg(out.join("kbuild-top.mk")).args(["-s", "-rR"]);
        // Without it the kernel's Makefile (since 6.10) would call itself again, and no more be ours.
        make.arg("--no-print-directory").args(make_args);
        make.arg(format!("lpbuild-source={}", self.source.display())).arg(format!("lpbuild-out={}", out.display()));
        make.args(self.external.map(|e| format!("M={}", e.dir.display())));
        make.args(self.variables());
        self.log.run(&mut make, codes::LP6212)?;
        let mut layout = TreeLayout { variables: variables(&read(&out.join("env"))?), ..TreeLayout::default() };

        for text in self.folders(out, &layout, ".")? {
            layout.add(&text);
        }
        if layout.objects.is_empty() && self.external.is_none() {
            return Err(Error::new(codes::LP6212, self.place(), "kbuild names no object at all"));
        }
        Ok(layout)
    }

    /// One folder and those below, asked anew.
    pub fn list(&self, layout: &TreeLayout, folder: &str) -> Result<TreeLayout> {
        let scratch = self.scratch()?;
        let mut found = TreeLayout::default();
        for text in self.folders(scratch.path(), layout, folder)? {
            found.add(&text);
        }
        Ok(found)
    }

    /// How the objects are compiled that `goals` of `folder` are linked from, as far as kbuild says; nothing is made.
    pub fn linked_from(&self, layout: &TreeLayout, folder: &str, goals: &[String]) -> Result<BTreeMap<String, Recipe>> {
        let scratch = self.scratch()?;
        let out = scratch.path();
        let mut make = self.make(out, layout, folder);
        // What such a program needs beside these objects (the finished kernel) is not there, so make ends with an error.
        let _ = self.log.run(make.args(["lpbuild-elsewhere=1", "-k", "-n"]).args(goals), codes::LP6212);
        self.described(out)
    }

    fn folders(&self, out: &Path, layout: &TreeLayout, folder: &str) -> Result<Vec<String>> {
        let mut make = self.make(out, layout, folder);
        let jobs = std::thread::available_parallelism().map_or(2, usize::from);
        self.log.run(make.arg(format!("-j{jobs}")).args(["lpbuild-list=1", "lpbuild-list"]), codes::LP6212)?;
        Ok(answers(out, "dir-")?.into_iter().map(|(_, text)| self.relative(&text)).collect())
    }

    /// Asks how objects are compiled. What has to be generated first is made in the build folder. Objects kbuild has no rule
    /// for are absent from the answer.
    pub fn recipes(&self, layout: &TreeLayout, objects: &BTreeSet<String>) -> Result<BTreeMap<String, Recipe>> {
        self.ask(layout, objects, &["-k"])
    }

    /// The same without making anything, for a source that is not the build folder's own.
    pub fn dry_recipes(&self, layout: &TreeLayout, objects: &BTreeSet<String>) -> Result<BTreeMap<String, Recipe>> {
        self.ask(layout, objects, &["-k", "-n"])
    }

    fn ask(&self, layout: &TreeLayout, objects: &BTreeSet<String>, how: &[&str]) -> Result<BTreeMap<String, Recipe>> {
        let scratch = self.scratch()?;
        let out = scratch.path();
        let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for object in objects {
            let own = object.rsplit_once('/').map_or(".", |(d, _)| d);
            let (folder, goal) = layout.named_by.get(object).map_or((own, object.as_str()), |(f, g)| (f, g));
            folders.entry(folder).or_default().push(goal);
        }
        for (folder, objects) in folders {
            let mut make = self.make(out, layout, folder);
            let objects = objects.into_iter().map(|o| self.in_folder(o));
            self.log.run(make.args(how).args(objects), codes::LP6212)?;
        }
        self.described(out)
    }

    /// What kbuild calls a folder or object: those of external modules by their absolute paths.
    fn in_folder(&self, path: &str) -> String {
        match self.external.map(|e| e.dir) {
            None => path.to_owned(),
            Some(dir) if path == "." => dir.display().to_string(),
            Some(dir) => dir.join(path).display().to_string(),
        }
    }

    /// An answer about a folder with names as those of the kernel's own objects are; what is for the compiler stays as it is.
    fn relative(&self, text: &str) -> String {
        let Some(dir) = self.external.map(|e| e.dir.display().to_string()) else { return text.to_owned() };
        let name = |word: &str| match word.strip_prefix(&dir) {
            Some("") => ".".to_owned(),
            Some(rest) => rest.strip_prefix('/').unwrap_or(word).to_owned(),
            None => word.to_owned(),
        };
        let line = |line: &str| match line.chars().next() {
            Some('c' | 'a') => line.to_owned(),
            _ => line.split(' ').map(name).collect::<Vec<_>>().join(" "),
        };
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The recipes that were answered, by object.
    fn described(&self, out: &Path) -> Result<BTreeMap<String, Recipe>> {
        let mut found = BTreeMap::new();
        for (name, text) in answers(out, "object-")? {
            let mut recipe = recipe(name, &text)?;
            recipe.object = self.relative(&normal(&recipe.object));
            recipe.modules = recipe.modules.iter().map(|m| self.relative(m)).collect();
            found.insert(recipe.object.clone(), recipe);
        }
        Ok(found)
    }

    fn make(&self, out: &Path, layout: &TreeLayout, folder: &str) -> Command {
        let mut make = tool::command("make");
        let makefile = out.join("kbuild-dir.mk");
        let source = match (self.external, layout.variables.get("srctree")) {
            (Some(_), Some(source)) => Path::new(source),
            _ => self.source,
        };
        make.arg("-C").arg(self.build).args(["-rR", "-s", "--no-print-directory", "-I"]).arg(source);
        make.envs(layout.environment(folder));
        // Of external modules the headers say where they are themselves.
        for name in ["srctree", "abs_srctree", "VPATH"].iter().filter(|_| self.external.is_none()) {
            make.env(name, self.source);
        }
        make.arg("-f").arg(&makefile).arg(format!("lpbuild-self={}", makefile.display()));
        make.arg(format!("lpbuild-out={}", out.display())).arg(format!("obj={}", self.in_folder(folder)));
        make.args(["need-builtin=1", "need-modorder=1"]).args(self.variables());
        make
    }

    /// What make is given for the modules. From its command line, since those of the environment yield to the Makefiles.
    fn variables(&self) -> &[String] {
        self.external.map_or(&[], |e| e.variables)
    }

    fn scratch(&self) -> Result<tempfile::TempDir> {
        let made = tempfile::Builder::new().prefix("lpbuild-kbuild-").tempdir();
        let dir = made.map_err(|e| Error::io(&std::env::temp_dir(), &e))?;
        for (name, text) in [("kbuild-top.mk", TOP), ("kbuild-dir.mk", DIR)] {
            let path = dir.path().join(name);
            std::fs::write(&path, text).map_err(|e| Error::io(&path, &e))?;
        }
        Ok(dir)
    }

    fn place(&self) -> Place {
        Place::object(self.build.display().to_string())
    }
}

impl TreeLayout {
    /// The variables kbuild exports to the Makefile of `folder`: flags that folders above add for those below are included.
    fn environment(&self, folder: &str) -> BTreeMap<String, String> {
        let mut variables = self.variables.clone();
        let mut below = ".".to_owned();
        for part in folder.split('/').filter(|part| *part != ".") {
            let here = if below == "." { part.to_owned() } else { format!("{below}/{part}") };
            // The folder's own flags are added by its own Makefile.
            if let Some((c, a)) = self.inherited.get(&below) {
                for (name, more) in [("KBUILD_CFLAGS", c), ("KBUILD_AFLAGS", a)] {
                    let flags = variables.entry(name.to_owned()).or_default();
                    flags.push(' ');
                    flags.push_str(more);
                }
            }
            below = here;
        }
        variables
    }

    /// Takes in what one folder answered.
    fn add(&mut self, text: &str) {
        let fields = fields(text);
        let words = |key: char| fields.get(&key).copied().unwrap_or("").split_whitespace();
        let objects = |key: char| words(key).filter(|w| w.ends_with(".o")).map(str::to_owned);
        let flags = |key: char| fields.get(&key).copied().unwrap_or("").trim().to_owned();
        let folder = flags('d');
        for object in objects('m') {
            self.objects.entry(normal(&object)).or_insert(ObjectPart::Module);
        }
        // vmlinux's own `head_64.o` is in `extra-y` before 6.2, and in `always-y` since.
        for object in objects('y').chain(objects('e').filter(|o| o.starts_with("arch/x86/kernel/"))) {
            self.objects.insert(normal(&object), ObjectPart::Builtin);
        }
        for object in objects('y').chain(objects('m')) {
            let name = normal(&object);
            if name != object || name.rsplit_once('/').map_or(".", |(d, _)| d) != folder {
                self.named_by.insert(name, (folder.clone(), object));
            }
        }
        self.host_sources.extend(words('h').map(|s| normal(&format!("{folder}/{s}"))));
        for makefile in words('i').filter(|m| !m.starts_with("scripts/")) {
            self.read_for.entry(normal(makefile)).or_default().insert(folder.clone());
        }
        if !flags('c').is_empty() || !flags('a').is_empty() {
            self.inherited.insert(folder, (flags('c'), flags('a')));
        }
    }

    /// The objects that the Makefile of `folder` names.
    pub fn named_in(&self, folder: &str) -> BTreeSet<String> {
        let own = |o: &&String| match self.named_by.get(*o) {
            Some((by, _)) => by == folder,
            None => o.rsplit_once('/').map_or(".", |(d, _)| d) == folder,
        };
        self.objects.keys().filter(own).cloned().collect()
    }

    /// A variable that kbuild exports.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Whether kbuild knows this folder.
    pub fn has_folder(&self, folder: &str) -> bool {
        self.read_for.values().any(|f| f.contains(folder))
    }

    /// What it is with `folder` and those below as [`Kbuild::list`] found them in another source.
    #[must_use]
    pub fn with(&self, folder: &str, found: &TreeLayout) -> Self {
        let mut layout = self.clone();
        layout.inherited.retain(|f, _| !is_below(f, folder));
        layout.named_by.retain(|_, (f, _)| !is_below(f, folder));
        layout.inherited.extend(found.inherited.clone());
        layout.named_by.extend(found.named_by.clone());
        layout.objects.extend(found.objects.clone());
        layout
    }
}

/// Whether a folder is `top` or lies in it.
pub fn is_below(folder: &str, top: &str) -> bool {
    top == "." || folder.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path without `..`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// The output of `env -0`, without make's own variables and those of the caller.
fn variables(text: &str) -> BTreeMap<String, String> {
    const OWN: &[&str] =
        &["MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "PATH", "HOME", "TMPDIR", "PWD", "OLDPWD"];
    let pairs = text.split('\0').filter_map(|v| v.split_once('='));
    pairs.filter(|(n, _)| !OWN.contains(n)).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// Files of the answer with this prefix: the object or folder, and the text.
fn answers(out: &Path, prefix: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(out).map_err(|e| Error::io(out, &e))? {
        let path = entry.map_err(|e| Error::io(out, &e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().replace('%', "/");
        if let Some(name) = name.strip_prefix(prefix) {
            found.push((name.to_owned(), read(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

fn fields(text: &str) -> BTreeMap<char, &str> {
    text.lines().filter_map(|l| Some((l.chars().next()?, l.get(1..)?.trim()))).collect()
}

fn recipe(object: String, text: &str) -> Result<Recipe> {
    let fields = fields(text);
    let field = |key: char| fields.get(&key).copied().unwrap_or("").to_owned();
    let (source, compiler, flags) = (field('s'), field('k'), field('f'));
    if source.is_empty() || compiler.is_empty() || !flags.contains("-Wp,-MMD,") {
        let what = format!("kbuild describes it in an unknown way: {text}");
        return Err(Error::new(codes::LP6212, Place::object(object), what));
    }
    // `; objtool ARGS OBJECT`. Where objtool is delayed until everything is linked, it is run on each object instead, with
    // the arguments that the linked one would get, so that the object has the shape the image has.
    let run = field('o');
    let run = run.trim_start_matches([';', ' ']);
    let objtool = match run.strip_suffix(&object) {
        Some(run) => run.trim().to_owned(),
        // On vmlinux.o, or on the linked module, it sees every object, those that are exempted from a run of their own as well;
        // a module of one object is that object. Without --module it gives up at the first static call of a module, with a
        // warning only, and leaves out all tables (create_static_call_sections of tools/objtool/check.c).
        None if run.is_empty() && !field('l').is_empty() && field('n').is_empty() => {
            let module = if field('x').is_empty() { "" } else { " --module" };
            format!("{} {} --link{module}", field('t'), field('p'))
        }
        None if run.is_empty() => String::new(),
        None => {
            let what = format!("the call of objtool has an unknown form: {run}");
            return Err(Error::new(codes::LP6212, Place::object(object), what));
        }
    };
    let of_module = !field('x').is_empty();
    let modules = field('m').split_whitespace().filter(|_| of_module).map(normal).collect();
    Ok(Recipe { object, source, compiler, flags, objtool, modules })
}

fn read(path: &PathBuf) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_folders_above_are_inherited_and_own_ones_are_left_to_the_makefile() {
        let mut layout = TreeLayout::default();
        layout.variables.insert("KBUILD_CFLAGS".into(), "-O2".into());
        layout.add("d drivers/a\nc -DA\ny drivers/a/x.o drivers/a/b/built-in.a\nm drivers/a/m.o\n");
        layout.add("d drivers/a/b\nc -DB\ni drivers/a/b/Makefile scripts/Makefile.lib\nh gen.c tools/../more.c\n");
        assert_eq!(layout.read_for, [("drivers/a/b/Makefile".into(), ["drivers/a/b".into()].into())].into());
        assert_eq!(layout.host_sources, ["drivers/a/b/gen.c".into(), "drivers/a/b/more.c".into()].into());
        assert!(
            layout.has_folder("drivers/a/b")
                && is_below("drivers/a/b", "drivers/a")
                && !is_below("driversa", "drivers")
        );
        assert_eq!(layout.environment("drivers/a")["KBUILD_CFLAGS"], "-O2");
        assert_eq!(layout.environment("drivers/a/b/c")["KBUILD_CFLAGS"], "-O2 -DA -DB");
        assert_eq!(layout.objects["drivers/a/x.o"], ObjectPart::Builtin);
        assert_eq!(layout.objects["drivers/a/m.o"], ObjectPart::Module);
        assert_eq!(layout.objects.len(), 2);
        layout.add("d security/selinux\ny security/selinux/ss/services.o security/selinux/avc.o\n");
        assert_eq!(layout.named_by.len(), 1);
        assert_eq!(layout.named_by["security/selinux/ss/services.o"].0, "security/selinux");
        layout.add("d arch/x86/kvm\nm arch/x86/kvm/../../../virt/kvm/vfio.o\n");
        let (folder, goal) = &layout.named_by["virt/kvm/vfio.o"];
        assert_eq!((folder.as_str(), goal.as_str()), ("arch/x86/kvm", "arch/x86/kvm/../../../virt/kvm/vfio.o"));
        assert_eq!(layout.objects["virt/kvm/vfio.o"], ObjectPart::Module);
        assert_eq!(layout.named_in("arch/x86/kvm"), ["virt/kvm/vfio.o".into()].into());
        assert!(layout.named_in("virt/kvm").is_empty());
    }

    #[test]
    fn what_kbuild_says_of_external_modules_is_relative_to_their_source() {
        let log = Log::default();
        let (source, dir) = (Path::new("/headers"), Path::new("/w/m"));
        let kbuild =
            Kbuild { source, build: source, external: Some(ExternalFolder { dir, variables: &[] }), log: &log };
        let mut layout = TreeLayout::default();
        layout.add(&kbuild.relative("d /w/m\nm /w/m/a.o /w/m/sub/b.o\nc -I/w/m/include\n"));
        layout.add(&kbuild.relative("d /w/m/sub\nm /w/m/sub/c.o /w/m/sub/../d.o\nc -DS\n"));
        let objects: Vec<&str> = layout.objects.keys().map(String::as_str).collect();
        assert_eq!(objects, ["a.o", "d.o", "sub/b.o", "sub/c.o"]);
        assert_eq!(layout.named_by["sub/b.o"], (".".into(), "sub/b.o".into()));
        assert_eq!((kbuild.in_folder("."), kbuild.in_folder("sub/b.o")), ("/w/m".into(), "/w/m/sub/b.o".into()));
        assert_eq!(layout.environment(".").get("KBUILD_CFLAGS"), None, "its own Makefile adds them");
        assert_eq!(
            layout.environment("sub")["KBUILD_CFLAGS"],
            " -I/w/m/include",
            "the compiler is told the whole path"
        );
        assert_eq!(layout.environment("sub/d")["KBUILD_CFLAGS"], " -I/w/m/include -DS");
    }

    #[test]
    fn a_recipe_names_compiler_flags_module_and_objtool() {
        // Only objects of the image get KBUILD_MODFILE, for the module they could have been.
        let text = "s /s/net/x.c\nk ccache gcc-12\nf -Wp,-MMD,net/.x.o.d -DKBUILD_MODFILE='\"net/deep/foo\"' -DX\n\
                    o ; ./objtool --orc  net/x.o\nt ./objtool\np --orc\nl \nm net/deep/../foo\n";
        let r = recipe("net/x.o".into(), text).unwrap();
        assert_eq!((r.objtool.as_str(), r.modfile()), ("./objtool --orc", None));
        let delayed = text.replace("o ; ./objtool --orc  net/x.o", "o ").replace("l \n", "l y\n");
        assert_eq!(recipe("net/x.o".into(), &delayed).unwrap().objtool, "./objtool --orc --link");
        let of_module = delayed.clone() + "x y\n";
        assert_eq!(recipe("net/x.o".into(), &of_module).unwrap().objtool, "./objtool --orc --link --module");
        assert_eq!(recipe("net/x.o".into(), &of_module).unwrap().modfile(), Some("net/foo"));
        let shared = recipe("net/x.o".into(), &of_module.replace("m net", "m net/a net")).unwrap();
        assert_eq!((shared.modfile(), shared.module_names().collect::<Vec<_>>()), (None, vec!["a", "foo"]));
        let alone = of_module + "n y\n";
        assert_eq!(recipe("net/x.o".into(), &alone).unwrap().objtool, "", "kbuild runs none on a module of one object");
        let exempted = text.replace("o ; ./objtool --orc  net/x.o", "o ");
        assert_eq!(recipe("net/x.o".into(), &exempted).unwrap().objtool, "");
        assert!(recipe("net/x.o".into(), "k gcc\n").is_err());
        assert!(recipe("net/x.o".into(), &text.replace("x.o\nt", "y.o\nt")).is_err());
    }
}
