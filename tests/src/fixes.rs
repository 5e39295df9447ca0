//! Real fixes of the distribution: what changed between two neighbouring versions of the source, as patches.
//!
//! Input: a list of `tests/fixes`, which names files, workloads and what is seen, and both source trees in the cache; the
//! patches are made of them with diff(1) when a test runs. Output: finished modules. While the kernels are the two the
//! list was written for, every fix of it is made, and one that cannot be is an error. For another pair, the files of the
//! list that still differ are taken, and as many more of the changed built-in files as are wanted, in a fixed order.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use harness::module::{Maker, Module};
use harness::{cmd, progress};
use lpbuild::plan::manifest::Manifest;
use lpbuild::source::kbuild::ObjectPart;
use serde::Deserialize;

use crate::in_checkout;

/// A file of `tests/fixes`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Upstream version of the kernel that runs.
    pub old: String,
    /// Upstream version the fixes come from.
    pub new: String,
    /// The fixes, in order.
    pub fix: Vec<Fix>,
}

/// One fix and how it is exercised.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fix {
    /// Name of the patch and its module.
    pub name: String,
    /// What it fixes, for the reader.
    pub about: String,
    /// The file whose difference it is.
    pub file: String,
    /// Only the hunks in the function of this name, where the file has other changes too.
    pub hunks_of: Option<String>,
    /// Replaced functions the workload must enter.
    #[serde(default)]
    pub entered: Vec<String>,
    /// Modules that the workload needs besides the one that is fixed and what that needs, as `net/8021q/8021q`.
    #[serde(default)]
    pub with: Vec<String>,
    /// Shell commands.
    #[serde(default)]
    pub workload: String,
    /// What the workload prints on the stock kernel, and with the fix; nothing where user space sees no effect.
    pub seen: Option<[String; 2]>,
}

/// A module of a fix.
#[derive(Clone, Debug)]
pub struct Made {
    /// Of the list, unless the file was taken to make up the number.
    pub fix: Option<Fix>,
    /// The module.
    pub module: Module,
    /// Names of the functions it replaces.
    pub functions: Vec<String>,
}

/// The modules of a test.
#[derive(Clone, Debug)]
pub struct Fixes {
    /// Whether this is the pair of versions the list is for: only then is it known what the fixes do.
    pub known: bool,
    /// The modules, those of the list first.
    pub made: Vec<Made>,
}

impl List {
    /// The list of a kernel series.
    pub fn read(series: &str) -> Result<Self> {
        let path = in_checkout(format!("tests/fixes/{series}.toml"));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Whether it was written for the versions of this kernel.
    pub fn is_for(&self, maker: &Maker<'_>) -> bool {
        self.old == maker.kernel.version.upstream() && self.new == maker.kernel.new_version.upstream()
    }

    /// The modules of those fixes of the list that `which` names; for another pair of versions, `wanted` of whatever there
    /// is. What is not in the list is called `NAME_0` and so on.
    pub fn make(&self, maker: &Maker<'_>, name: &str, which: &dyn Fn(&Fix) -> bool, wanted: usize) -> Result<Fixes> {
        let known = self.is_for(maker);
        let mut made = Vec::new();
        for fix in self.fix.iter().filter(|f| which(f)) {
            match make(maker, &fix.name, &fix.file, fix.hunks_of.as_deref()) {
                Ok(module) => made.push(of(Some(fix), module)?),
                Err(e) if known => return Err(e.context(format!("the fix {} of {}", fix.name, fix.file))),
                Err(e) => progress(format!("{} ({}) is replaced by another fix: {e:#}", fix.name, fix.file)),
            }
        }
        if known {
            return Ok(Fixes { known, made });
        }
        for file in others(maker, self) {
            if made.len() >= wanted {
                break;
            }
            let name = format!("{name}_{}", made.len());
            // Refused, no difference in code, or in need of a changed header: the next one.
            match make(maker, &name, &file, None) {
                Ok(module) => made.push(of(None, module)?),
                Err(e) => println!("{file} is not taken: {e:#}"),
            }
        }
        if made.len() < wanted {
            bail!("only {} of {wanted} fixes can be made of what differs between the two versions", made.len());
        }
        Ok(Fixes { known, made })
    }
}

fn of(fix: Option<&Fix>, module: Module) -> Result<Made> {
    let path = module.dir.join("manifest.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let manifest = Manifest::parse(&text, "manifest.toml")?;
    let functions = manifest.functions.iter().map(|f| f.symbol.clone()).collect();
    Ok(Made { fix: fix.cloned(), module, functions })
}

fn make(maker: &Maker<'_>, name: &str, file: &str, hunks_of: Option<&str>) -> Result<Module> {
    let text = difference(&maker.kernel.old_source(), &maker.kernel.new_source(), file, hunks_of)?;
    let dir = tempfile::tempdir()?;
    let patch = dir.path().join(format!("{name}.patch"));
    fs::write(&patch, text)?;
    maker.make_patch(name, &patch)
}

/// The difference of one file as a patch, or those of its hunks that begin in the function `hunks_of`.
pub fn difference(old: &Path, new: &Path, file: &str, hunks_of: Option<&str>) -> Result<String> {
    let mut diff = cmd::command("diff");
    diff.args(["-u", "-p", "--label", &format!("a/{file}"), "--label", &format!("b/{file}")]);
    let out = diff.arg(old.join(file)).arg(new.join(file)).output().context("start diff")?;
    let text = String::from_utf8(out.stdout).with_context(|| format!("{file} is not UTF-8"))?;
    match out.status.code() {
        Some(1) => {}
        Some(0) => bail!("{file} is the same in both versions"),
        _ => bail!("{file}: {}", String::from_utf8_lossy(&out.stderr).trim()),
    }
    let Some(function) = hunks_of else { return Ok(text) };
    let mut hunks: Vec<String> = Vec::new();
    for line in text.split_inclusive('\n') {
        match hunks.last_mut() {
            Some(hunk) if !line.starts_with("@@ ") => hunk.push_str(line),
            _ => hunks.push(line.to_owned()),
        }
    }
    let (head, hunks): (Vec<_>, Vec<_>) = hunks.into_iter().partition(|h| !h.starts_with("@@ "));
    let of_it = |h: &&String| h.lines().next().is_some_and(|l| l.contains(function));
    let chosen: String = hunks.iter().filter(of_it).map(String::as_str).collect();
    if chosen.is_empty() {
        bail!("no change of {file} is in {function}");
    }
    Ok(head.concat() + &chosen)
}

/// The other changed files of the kernel proper: one of each part in turn, each part in order of the names.
fn others(maker: &Maker<'_>, list: &List) -> Vec<String> {
    let (old, new) = (maker.kernel.old_source(), maker.kernel.new_source());
    let mut parts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (object, part) in &maker.tree.layout().objects {
        let file = format!("{}.c", object.trim_end_matches(".o"));
        let known = list.fix.iter().any(|f| f.file == file);
        if *part == ObjectPart::Builtin && !known && differs(&old, &new, &file) {
            let folder = file.split('/').next().unwrap_or_default().to_owned();
            parts.entry(folder).or_default().push(file);
        }
    }
    let longest = parts.values().map(Vec::len).max().unwrap_or(0);
    for files in parts.values_mut() {
        files.sort();
    }
    (0..longest).flat_map(|i| parts.values().filter_map(move |files| files.get(i).cloned())).collect()
}

fn differs(old: &Path, new: &Path, file: &str) -> bool {
    matches!((fs::read(old.join(file)), fs::read(new.join(file))), (Ok(a), Ok(b)) if a != b)
}

/// The case that loads all of them side by side, exercises them, and takes them out again.
pub fn script(fixes: &Fixes, setup: &str) -> String {
    let known = if fixes.known { "yes" } else { "no" };
    let mut text = format!("known={known}\n{BEGIN}{setup}\n");
    for made in &fixes.made {
        if let Some(fix) = &made.fix {
            text += &format!("work_{}() {{\n{}\n}}\n", fix.name, fix.workload.trim());
        }
    }
    let listed = || fixes.made.iter().filter_map(|m| m.fix.as_ref());
    let seen = |state: &str, side: usize| -> String {
        let of_fix = |fix: &Fix| {
            let text = fix.seen.as_ref().map(|s| s[side].clone())?;
            Some(format!("expect '{} {state}' '{text}' \"$(work_{})\"\n", fix.name, fix.name))
        };
        if fixes.known { listed().filter_map(of_fix).collect() } else { String::new() }
    };
    text += "ktext save /tmp/text\nstep before\n";
    text += &seen("before", 0);
    text += "step load\n";
    for made in &fixes.made {
        text += &format!("load {} {}\n", made.module.name, made.functions.join(" "));
    }
    text += "step during\necho > $t/trace\necho function > $t/current_tracer\n";
    text += &seen("during", 1);
    for fix in listed().filter(|f| !fixes.known || f.seen.is_none()) {
        let lenient = if fixes.known { "" } else { " || echo 'nothing is known of its end'" };
        text += &format!("work_{}{lenient}\n", fix.name);
    }
    for made in &fixes.made {
        let name = &made.module.name;
        match &made.fix {
            Some(fix) if fixes.known => {
                text += &fix.entered.iter().map(|f| format!("entered {name} {f}\n")).collect::<String>();
            }
            _ => text += &made.functions.iter().map(|f| format!("count {name} {f}\n")).collect::<String>(),
        }
    }
    text += "echo nop > $t/current_tracer\necho > $t/set_ftrace_filter\nstep unload\n";
    if !fixes.known {
        text += &format!(
            "set -- $loaded; [ $(($# * 2)) -ge {} ] || fail \"only $# fixes could be applied\"\n",
            fixes.made.len()
        );
        text += "[ $all -ge 1 ] || fail 'no function of any fix was entered'\n";
    }
    text += "for name in $loaded; do lpbuild unload $name; done\nktext diff /tmp/text\nstep after\n";
    text += &seen("after", 0);
    text
}

/// The filter names the functions as they are in the module: what is counted is code of the patch, not the stock code. Of
/// fixes nobody has tried, one may be refused because a task always sleeps in its function.
const BEGIN: &str = r#"
t=/sys/kernel/tracing
loaded=
all=0
load() {
    status=0; lpbuild load /$1.ko || status=$?
    case $known$status in *0) ;; no4) return 0 ;; *) fail "load of $1 ended with $status" ;; esac
    name=$1; loaded="$loaded $name"; shift
    for f; do echo "$f:mod:$name" >> $t/set_ftrace_filter || echo "$f of $name cannot be traced"; done
}
count() {
    hits=$(grep -c " $2 <-" $t/trace || true)
    echo "RESULT $1.$2=$hits"
    all=$((all + hits))
}
entered() { count $1 $2; [ $hits -ge 1 ] || fail "$1: $2 was not entered"; }
"#;
