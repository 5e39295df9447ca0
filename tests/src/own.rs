//! The fixes written for the kernels of our own: `tests/own/fixes.toml` and `tests/own/fixes`, as modules made from pairs
//! of objects, and the case that loads them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use harness::cmd;
use harness::module::{Module, once};
use harness::own::{OwnKernel, Variant};
use harness::vm::Vm;
use serde::Deserialize;

use crate::in_checkout;

/// What becomes of a fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// A module.
    Patch,
    /// A refusal with the code of the fix.
    Refused,
    /// No function changed.
    Nothing,
}

/// When a fix runs, unless `LPBUILD_OWN_FIXES=all` asks for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// For each of its kernels.
    Always,
    /// For [`Variant::Full`].
    #[default]
    Full,
    /// Not.
    Thorough,
}

/// One fix; `tests/own/fixes.toml` says what the fields mean.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fix {
    /// Name of the patch, without its ending.
    pub name: String,
    /// The form of the change.
    pub about: String,
    /// Names of the kernels it is for; all when empty.
    #[serde(default)]
    pub variants: Vec<String>,
    /// When it runs.
    #[serde(default)]
    pub when: When,
    /// What becomes of it.
    pub expect: Expect,
    /// Code of the refusal.
    pub code: Option<String>,
    /// Functions that come out changed for [`Variant::Full`].
    #[serde(default)]
    pub changed: Vec<String>,
    /// A script for the guest.
    pub check: Option<String>,
    /// What it prints without and with the patch.
    pub seen: Option<[String; 2]>,
    /// Code of the refusal of the pairs of objects, where linked kernels are not refused.
    pub objects: Option<String>,
}

impl Fix {
    /// Whether it is for a kernel.
    pub fn is_for(&self, variant: Variant) -> bool {
        self.variants.is_empty() || self.variants.iter().any(|v| v == variant.name())
    }

    /// Whether it comes out as a patch that shows in the guest.
    pub fn is_seen(&self) -> bool {
        self.expect == Expect::Patch && self.check.is_some()
    }

    /// The patch.
    pub fn patch(&self) -> PathBuf {
        in_checkout("tests/own/fixes").join(format!("{}.patch", self.name))
    }

    /// Name of the module.
    pub fn module(&self, variant: Variant) -> String {
        format!("{}_{}", variant.name(), self.name).replace('-', "_")
    }

    /// The module of the pairs of objects, in `target/modules/NAME-KEY`.
    pub fn from_objects(&self, kernel: &OwnKernel, lpbuild: &Path) -> Result<Module> {
        let pair = kernel.patched(&self.patch())?.objects;
        self.made(kernel, lpbuild, &[&pair.old, &pair.new], "o", &["--kernel".as_ref(), kernel.vmlinux.as_os_str()])
    }

    /// The module of two linked kernels, the old one as `old`.
    pub fn from_images(&self, kernel: &OwnKernel, lpbuild: &Path, old: &Path) -> Result<Module> {
        let new = kernel.patched(&self.patch())?.vmlinux;
        self.made(kernel, lpbuild, &[old, &new], "v", &[])
    }

    /// The module of two `vmlinux.o`, bound to the linked kernel.
    pub fn from_relocatable(&self, kernel: &OwnKernel, lpbuild: &Path) -> Result<Module> {
        let new = kernel.patched(&self.patch())?.vmlinux_o;
        let bind = ["--kernel".as_ref(), kernel.vmlinux.as_os_str()];
        self.made(kernel, lpbuild, &[&kernel.vmlinux_o, &new], "r", &bind)
    }

    fn made(
        &self,
        kernel: &OwnKernel,
        lpbuild: &Path,
        sides: &[&Path; 2],
        form: &str,
        bind: &[&OsStr],
    ) -> Result<Module> {
        let name = format!("{}_{form}", self.module(kernel.variant));
        let inputs: Vec<String> = sides.iter().map(|s| s.display().to_string()).collect();
        once(&name, &name, &inputs, |dir, ko| {
            let mut diff = cmd::command(lpbuild);
            diff.arg("diff").args(sides).args(bind).arg("-o").arg(dir);
            let mut report = cmd::output(diff.args(["--name", &name]))?;
            let mut pack = cmd::command(lpbuild);
            report += &cmd::output(pack.arg("pack").arg(dir).arg("--headers").arg(&kernel.build).arg("-o").arg(ko))?;
            Ok(report)
        })
    }
}

/// The list, checked for what every user relies on.
pub fn fixes() -> Result<Vec<Fix>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        fix: Vec<Fix>,
    }
    let path = in_checkout("tests/own/fixes.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let list: List = toml::from_str(&text).with_context(|| path.display().to_string())?;
    for fix in &list.fix {
        let known = |v: &String| Variant::ALL.iter().any(|k| k.name() == v);
        if !fix.patch().is_file()
            || fix.check.is_some() != fix.seen.is_some()
            || (fix.expect == Expect::Refused) != fix.code.is_some()
            || !fix.variants.iter().all(known)
        {
            bail!("{}: {} is not complete", path.display(), fix.name);
        }
    }
    Ok(list.fix)
}

/// Those of the list that run for a kernel.
pub fn chosen(variant: Variant) -> Result<Vec<Fix>> {
    let all = std::env::var_os("LPBUILD_OWN_FIXES").is_some_and(|v| v == "all");
    let is_wanted = |f: &Fix| match f.when {
        When::Always => true,
        When::Full => all || variant == Variant::Full,
        When::Thorough => all,
    };
    Ok(fixes()?.into_iter().filter(|f| f.is_for(variant) && is_wanted(f)).collect())
}

/// A young kernel still rewrites its text: static keys of the timers, when the clock source has been found.
const SETTLE: &str = r"
ktext save /tmp/text
tries=0
until sleep 2; ktext diff /tmp/text > /tmp/settling 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 10 ] || fail 'the text of the kernel does not settle'
    ktext save /tmp/text
done
";

/// A case that loads the modules `/NAME.ko` of fixes one by one: what is seen before, with it, and after.
pub fn script(fixes: &[(&Fix, &Module)]) -> String {
    let mut text = String::from(SETTLE);
    for (fix, module) in fixes {
        let (Some(check), Some([before, with])) = (&fix.check, &fix.seen) else { continue };
        let name = &module.name;
        text += &format!("step {name}\ncheck() {{\n{}\n}}\n", check.trim());
        text += &format!("expect 'before' '{before}' \"$(check)\"\nlpbuild load /{name}.ko\n");
        text += &format!("expect 'with {name}' '{with}' \"$(check)\"\nlpbuild unload {name}\n");
        text += &format!("expect 'after {name}' '{before}' \"$(check)\"\n");
    }
    text + "ktext diff /tmp/text\n"
}

/// Boots the kernel and loads the modules of fixes in it, one by one.
pub fn load(name: &str, kernel: &OwnKernel, lpbuild: &Path, made: &[(&Fix, Module)]) -> Result<()> {
    let mut vm = Vm::booting(name, &kernel.bzimage).file("/bin/lpbuild", lpbuild);
    for (_, module) in made {
        vm = vm.file(&format!("/{}.ko", module.name), &module.ko);
    }
    let release = format!("expect release {} \"$(uname -r)\"\n", kernel.release);
    let list: Vec<(&Fix, &Module)> = made.iter().map(|(f, m)| (*f, m)).collect();
    vm.case(&(release + &script(&list))).run()?.require_pass().map(drop)
}
