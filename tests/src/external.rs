//! The external modules of tests/external: built beside a kernel as DKMS builds them, installed in a folder of modules, patched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{Env, in_checkout};

/// A source file, a text of it that occurs once, and what stands there instead.
pub type Edit<'a> = (&'a str, &'a str, &'a str);

/// An inline function of a header that both modules have, and a function of one of them.
pub const FIX: [Edit<'_>; 2] = [
    ("include/lpt.h", "return n * 3;", "return n * 5;"),
    ("sub/lpt_part.c", "lpt_weight(n) + 100 +", "lpt_weight(n) + 200 +"),
];

/// Source, and the modules that were built of a copy of it.
#[derive(Debug)]
pub struct External {
    /// Everything of it.
    pub dir: PathBuf,
    /// What a user has of it: the source.
    pub source: PathBuf,
    /// As /lib/modules/RELEASE.
    pub modules: PathBuf,
}

impl External {
    /// In an empty folder.
    pub fn make(env: &Env, dir: &Path) -> Self {
        let (source, built, modules) = (dir.join("lpt-1.0"), dir.join("dkms/lpt/1.0/build"), dir.join("modules"));
        for copy in [&source, &built] {
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            run(Command::new("cp").arg("-r").arg(in_checkout("tests/external")).arg(copy));
        }
        let made = Self { dir: dir.to_owned(), source, modules };
        made.build(env, &built);
        for name in ["lpt_ext", "lpt-user"] {
            made.install(&built.join(format!("{name}.ko")), "updates/dkms");
        }
        made
    }

    /// `make -C HEADERS M=DIR`.
    pub fn build(&self, env: &Env, dir: &Path) {
        let m = format!("M={}", dir.display());
        run(Command::new("make").arg("-C").arg(&env.kernel.headers).arg(m).args(["-s", "modules"]));
    }

    /// Puts a module below the folder of modules.
    pub fn install(&self, ko: &Path, folder: &str) {
        let folder = self.modules.join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(ko, folder.join(ko.file_name().unwrap())).unwrap();
    }

    /// The file of an installed module.
    pub fn file(&self, name: &str) -> PathBuf {
        self.modules.join(format!("updates/dkms/{name}.ko"))
    }

    /// A patch of edits, relative to the source.
    pub fn patch(&self, name: &str, edits: &[Edit<'_>]) -> PathBuf {
        // One of that name from before.
        let _ = fs::remove_dir_all(self.dir.join(name));
        let sides = ["a", "b"].map(|side| self.dir.join(name).join(side));
        for (file, from, to) in edits {
            let text = fs::read_to_string(sides[1].join(file)).or_else(|_| fs::read_to_string(self.source.join(file)));
            let text = text.unwrap_or_default();
            assert!(from.is_empty() || text.matches(from).count() == 1, "{file}: {from:?} once");
            let before = fs::read_to_string(self.source.join(file)).unwrap_or_default();
            let after = if from.is_empty() { format!("{text}{to}") } else { text.replace(from, to) };
            for (side, text) in [(&sides[0], before), (&sides[1], after)] {
                let path = side.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                // A file that is not there is added, and one that becomes empty removed.
                let _ = if text.is_empty() { fs::remove_file(&path) } else { fs::write(&path, text) };
            }
        }
        let diff = Command::new("diff").args(["-ruN", "a", "b"]).current_dir(self.dir.join(name)).output().unwrap();
        let path = self.dir.join(format!("{name}.patch"));
        fs::write(&path, diff.stdout).unwrap();
        path
    }

    /// `lpbuild build PATCH` for these modules, not yet started; the result goes to `out` in the folder.
    pub fn command(&self, env: &Env, lpbuild: &Path, patch: &Path) -> Command {
        let mut c = harness::cmd::command(lpbuild);
        c.arg("build").arg(patch).arg("-o").arg(self.dir.join("out")).arg("--image").arg(&env.kernel.vmlinuz);
        c.arg("--headers").arg(&env.kernel.headers).arg("--config").arg(&env.kernel.config);
        c.arg("--module-source").arg(&self.source).arg("--module-dir").arg(&self.modules);
        c
    }
}

fn run(c: &mut Command) -> Output {
    let out = c.output().unwrap();
    assert!(out.status.success(), "{c:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}
