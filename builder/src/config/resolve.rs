//! What `schema` read becomes a [`Config`]: defaults, absolute paths, and every rule that is not a type.

use crate::plan::Leave;
use crate::plan::Options;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::accept::{self, Accept, Acceptances};
use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::pack::Signer;
use crate::plan::manifest::{self, Callbacks, Jump, Mode};

use super::schema::{self, Value};
use super::text::{Text, nearest};
use super::{Config, ExternalModules, KernelChoice, expected};

/// What stands where a path is expected.
#[derive(Clone, Copy)]
enum Want {
    File,
    Folder,
}

/// The file being resolved and what was found wrong so far.
struct Resolver<'a> {
    text: Text<'a>,
    /// Absolute.
    folder: PathBuf,
    problems: Vec<Problem>,
}

pub(super) fn resolve(text: Text<'_>, file: schema::File, path: &Path) -> Result<Config> {
    let path = std::path::absolute(path).map_err(|e| Error::io_at(Place::object(text.path), &e))?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut r = Resolver { text, folder, problems: Vec::new() };
    let patch = &file.patch;
    if let Err(e) = manifest::check_name(patch.name.get_ref(), text.path) {
        let detail = e.problems.into_iter().map(|p| p.detail).collect::<Vec<_>>().join(", ");
        r.bad(patch.name.span(), detail);
    }
    let version = r.checked(patch.version.as_ref(), |v| {
        let ok = manifest::is_plain(v, manifest::VERSION_MAX);
        if ok {
            Ok(())
        } else {
            Err(format!("the version {v:?} is not {}", manifest::plain_rule(manifest::VERSION_MAX)))
        }
    });
    let description = r.checked(patch.description.as_ref(), |d| {
        let ok = manifest::is_line(d);
        if ok { Ok(()) } else { Err(format!("the description is not {}", manifest::LINE_RULE)) }
    });
    let [after, replaces] = r.other_patches(patch);
    // Problems are reported in the order of docs/livepatch.md.
    let patches = r.patches(&patch.patches);
    let leave_out = r.leave_out(patch.leave_out.as_ref());
    let functions = patch.functions.as_ref().map(|f| r.functions(f));
    let mut options = Options {
        version: version.unwrap_or_else(|| "1".to_owned()),
        description: description.unwrap_or_default(),
        mode: patch.mode.as_ref().and_then(|mode| r.mode(mode)),
        after,
        replaces,
        deadline_ms: r.milliseconds(patch.deadline_ms.as_ref()),
        patience_ms: r.milliseconds(patch.patience_ms.as_ref()).unwrap_or(lpbuild_abi::PATIENCE_MS),
        oneshot: patch.oneshot.as_ref().is_some_and(|o| *o.get_ref()),
        jump: r.jump(patch.jump.as_ref()),
        data: r.data(patch.data.as_ref()),
        ..Options::named(patch.name.get_ref().clone())
    };
    let (kernel, external) = (r.kernel(&file.kernel), file.module.as_ref().map(|m| r.external(m)));
    let flags = r.flags(&file.build.flags);
    options.callbacks = r.callbacks(&file.callbacks);
    options.accept = r.accept(&file.accept);
    let sign = file.sign.as_ref().map(|s| r.sign(s));
    let config = Config { options, patches, leave_out, functions, kernel, external, flags, sign, file: Some(path) };
    // post-revert also follows an apply that was refused.
    if let (true, Some(callback)) = (config.options.oneshot, &file.callbacks.pre_revert) {
        r.bad(callback.span(), "with oneshot = true the patch is never reverted, so this is never called");
    }
    crate::error::refuse(r.problems)?;
    Ok(config)
}

/// A patch file given on the command line, as an absolute path.
pub(super) fn existing_file(path: &Path) -> Result<PathBuf, Problem> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    match missing(&absolute, Want::File) {
        None => Ok(absolute),
        Some(why) => Err(Problem::new(codes::LP6006, Place::object(path.display().to_string()), why)),
    }
}

fn missing(path: &Path, want: Want) -> Option<String> {
    match (std::fs::metadata(path), want) {
        (Err(e), _) => Some(format!("{}: {e}", path.display())),
        (Ok(m), Want::File) if m.is_dir() => Some(format!("{} is a folder, not a file", path.display())),
        (Ok(m), Want::Folder) if !m.is_dir() => Some(format!("{} is not a folder", path.display())),
        _ => None,
    }
}

impl Resolver<'_> {
    fn bad(&mut self, span: Range<usize>, detail: impl Into<String>) {
        self.problems.push(self.text.problem(codes::LP6005, span, detail));
    }

    fn checked(
        &mut self,
        value: Option<&Spanned<String>>,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<String> {
        let value = value?;
        if let Err(detail) = check(value.get_ref()) {
            self.bad(value.span(), detail);
        }
        Some(value.get_ref().clone())
    }

    /// An absolute path of something that is there.
    fn path(&mut self, value: &Spanned<String>, want: Want) -> PathBuf {
        if value.get_ref().is_empty() {
            self.bad(value.span(), "the path is empty");
            return PathBuf::new();
        }
        let path = self.folder.join(value.get_ref());
        if let Some(why) = missing(&path, want) {
            self.problems.push(self.text.problem(codes::LP6006, value.span(), why));
        }
        path
    }

    fn patches(&mut self, value: &Spanned<Vec<Spanned<String>>>) -> Vec<PathBuf> {
        if value.get_ref().is_empty() {
            self.bad(value.span(), "no patch is named");
        }
        let mut out = Vec::new();
        for patch in value.get_ref() {
            let path = self.path(patch, Want::File);
            if out.contains(&path) {
                self.bad(patch.span(), "this patch is named twice");
            }
            out.push(path);
        }
        out
    }

    fn functions(&mut self, value: &Spanned<Vec<Spanned<String>>>) -> Vec<String> {
        if value.get_ref().is_empty() {
            self.bad(value.span(), "no function is named; leave the key out to accept whatever changes");
        }
        let mut seen = BTreeSet::new();
        for function in value.get_ref() {
            let name = function.get_ref();
            if !expected::is_entry(name) {
                self.bad(function.span(), format!("{name:?} is neither `symbol` nor `path/file.o:symbol`"));
            } else if !seen.insert(name.as_str()) {
                self.bad(function.span(), format!("{name} is named twice"));
            }
        }
        value.get_ref().iter().map(|f| f.get_ref().clone()).collect()
    }

    fn accept(&mut self, table: &schema::Accept) -> Acceptances {
        let mut all = Acceptances::default();
        for kind in Accept::ALL {
            let mut seen = BTreeSet::new();
            for name in table.of(kind) {
                if !accept::is_name(name.get_ref()) {
                    self.bad(name.span(), format!("{:?} is no name", name.get_ref()));
                } else if !seen.insert(name.get_ref().as_str()) {
                    self.bad(name.span(), format!("{} is named twice", name.get_ref()));
                }
                all.add(kind, name.get_ref().clone());
            }
        }
        all
    }

    fn mode(&mut self, value: &Spanned<String>) -> Option<Mode> {
        let mode = Mode::named(value.get_ref());
        if mode.is_none() {
            let known = Mode::ALL.map(Mode::name);
            let hint = nearest(value.get_ref(), &known).unwrap_or_default();
            self.bad(
                value.span(),
                format!("there is no mode {:?}{hint}; known: {}", value.get_ref(), known.join(", ")),
            );
        }
        mode
    }

    /// `after` and `replaces`.
    fn other_patches(&mut self, patch: &schema::Patch) -> [Vec<String>; 2] {
        let own = patch.name.get_ref();
        let mut seen = BTreeSet::new();
        [&patch.after, &patch.replaces].map(|value| {
            let names = value.as_ref().map(|v| v.get_ref().as_slice()).unwrap_or_default();
            for name in names {
                if let Err(detail) = manifest::check_other(own, name.get_ref(), !seen.insert(name.get_ref().clone())) {
                    self.bad(name.span(), detail);
                }
            }
            names.iter().map(|n| n.get_ref().clone()).collect()
        })
    }

    fn milliseconds(&mut self, value: Option<&Spanned<i64>>) -> Option<u32> {
        let value = value?;
        match u32::try_from(*value.get_ref()) {
            Ok(ms) if ms > 0 => Some(ms),
            _ => {
                self.bad(
                    value.span(),
                    format!("{} is not a number of milliseconds from 1 to {}", value.get_ref(), u32::MAX),
                );
                None
            }
        }
    }

    fn leave_out(&mut self, value: Option<&Spanned<Vec<Spanned<String>>>>) -> Vec<String> {
        let names = value.map(|v| v.get_ref().as_slice()).unwrap_or_default();
        for name in names {
            if let Err(detail) = Leave::parse(name.get_ref()) {
                self.bad(name.span(), detail);
            }
        }
        names.iter().map(|n| n.get_ref().clone()).collect()
    }

    /// Constants that change in their place.
    fn data(&mut self, value: Option<&Spanned<Vec<Spanned<String>>>>) -> Vec<String> {
        let names = value.map(|v| v.get_ref().as_slice()).unwrap_or_default();
        for (i, name) in names.iter().enumerate() {
            if let Err(detail) = manifest::check_data_name(name.get_ref()) {
                self.bad(name.span(), detail);
            } else if names.iter().take(i).any(|n| n.get_ref() == name.get_ref()) {
                self.bad(name.span(), format!("{} is named twice in `data`", name.get_ref()));
            }
        }
        names.iter().map(|n| n.get_ref().clone()).collect()
    }

    fn jump(&mut self, value: Option<&Spanned<String>>) -> Jump {
        let Some(value) = value else { return Jump::Rel32 };
        match value.get_ref().as_str() {
            "rel32" => Jump::Rel32,
            "abs64" => Jump::Abs64,
            other => {
                let hint = nearest(other, &["rel32", "abs64"]).unwrap_or_default();
                self.bad(value.span(), format!("there is no jump {other:?}{hint}; known: rel32, abs64"));
                Jump::Rel32
            }
        }
    }

    fn kernel(&mut self, k: &schema::Kernel) -> KernelChoice {
        let release = self.checked(k.release.as_ref(), |r| {
            let ok = manifest::is_plain(r, manifest::RELEASE_MAX) && !r.contains('/');
            if ok { Ok(()) } else { Err(format!("{r:?} is not a kernel release as `uname -r` prints it")) }
        });
        let mut path = |v: &Value<String>, want| v.as_ref().map(|v| self.path(v, want));
        let (image, headers) = (path(&k.image, Want::File), path(&k.headers, Want::Folder));
        let (source, config) = (path(&k.source, Want::Folder), path(&k.config, Want::File));
        let module_dir = path(&k.module_dir, Want::Folder);
        let compiler = self.checked(k.compiler.as_ref(), |c| {
            let programs: Vec<&str> = c.split_ascii_whitespace().collect();
            let relative = |p: &&str| p.contains('/') && !p.starts_with('/');
            if programs.is_empty() {
                return Err("the compiler is empty".to_owned());
            }
            if let Some(word) = programs.iter().find(|p| !is_word(p)) {
                return Err(format!("the compiler has {word:?}, which the shell would not take as one word"));
            }
            match programs.iter().find(|p| relative(p)) {
                Some(p) => Err(format!("the compiler {p:?} is neither a name in PATH nor an absolute path")),
                None => Ok(()),
            }
        });
        KernelChoice { release, image, headers, source, config, compiler, module_dir }
    }

    fn external(&mut self, m: &schema::Module) -> ExternalModules {
        let source = self.path(&m.source, Want::Folder);
        ExternalModules { source, files: m.files.iter().map(|f| self.path(f, Want::File)).collect() }
    }

    /// They reach the compiler through make and the shell as they are.
    fn flags(&mut self, values: &[Spanned<String>]) -> Vec<String> {
        for value in values {
            let flag = value.get_ref();
            let mode_of_operation = ["-c", "-S", "-E", "-M", "-MM", "-MD", "-MMD", "-fsyntax-only", "-save-temps"];
            if !flag.starts_with('-') || flag.len() < 2 || !is_word(flag) {
                let rule =
                    "one compiler option that begins with `-` and has no blanks, quotes or characters of the shell";
                self.bad(value.span(), format!("{flag:?} is not {rule}"));
            } else if mode_of_operation.contains(&flag.as_str()) || flag.starts_with("-o") {
                self.bad(
                    value.span(),
                    format!("{flag} decides what the compiler writes, which is up to the kernel's build"),
                );
            }
        }
        values.iter().map(|v| v.get_ref().clone()).collect()
    }

    fn callbacks(&mut self, c: &schema::Callbacks) -> Callbacks {
        let mut name = |v: &Value<String>| {
            self.checked(v.as_ref(), |f| {
                if manifest::is_identifier(f) { Ok(()) } else { Err(format!("{f:?} is not the name of a C function")) }
            })
        };
        Callbacks {
            pre_apply: name(&c.pre_apply),
            post_apply: name(&c.post_apply),
            pre_revert: name(&c.pre_revert),
            post_revert: name(&c.post_revert),
        }
    }

    fn sign(&mut self, s: &schema::Sign) -> Signer {
        // A key on a token has no path (scripts/sign-file.c).
        let token = s.key.get_ref().starts_with("pkcs11:");
        let key = if token { PathBuf::from(s.key.get_ref()) } else { self.path(&s.key, Want::File) };
        Signer { key, cert: self.path(&s.certificate, Want::File) }
    }
}

/// One word for make and the shell, whatever stands around it.
fn is_word(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-+=.,/:@".contains(&c))
}
