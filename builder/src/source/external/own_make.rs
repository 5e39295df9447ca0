//! A folder's own Makefile that calls kbuild, as `MAKE[0]="make KVER=$kernelver"` of a `dkms.conf` leaves it to that.
//!
//! Input: a copy of the folder, what make is given. Output: the variables with which kbuild is called for it. Make is asked what it would do
//! (`-n`), with a program in the place of `$(MAKE)` that notes what is exported to it and does nothing: lines with `$(MAKE)` are run all the same
//! (GNU make, "How the MAKE Variable Works"). Refused, in words: anything else that would be run, a call of kbuild elsewhere or for another
//! folder, two that differ, what is exported to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::dkms::{OwnCall, handed_on};
use crate::codes;
use crate::tool::{self, Log};

/// What every program that make runs finds in its environment.
const ANYWAY: &[&str] = &[
    "HOME",
    "LC_ALL",
    "MAKE",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MAKEOVERRIDES",
    "MAKE_TERMERR",
    "MAKE_TERMOUT",
    "MFLAGS",
    "OLDPWD",
    "PATH",
    "PWD",
    "SHLVL",
    "TMPDIR",
    "TZ",
    "_",
];

/// What kbuild is given.
pub(super) fn variables(
    own: &OwnCall,
    copy: &Path,
    headers: &Path,
    release: &str,
    log: &Log,
) -> Result<Vec<String>, String> {
    let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
    let exported = scratch.path().join("env");
    let stub = format!("env -0 > {} ; :", tool::quote(&exported.display().to_string()));
    let mut make = tool::command("make");
    make.current_dir(copy).env("PWD", copy).args(["-n", "--no-print-directory"]).arg(format!("MAKE={stub}"));
    let said = log.run(make.args(&own.variables).args(&own.goals), codes::LP6217);
    let said = said.map_err(|e| e.problems.first().map_or_else(String::new, |p| p.detail.clone()))?;
    let mut calls: Vec<Vec<String>> = Vec::new();
    for line in said.lines().filter(|l| !l.trim().is_empty()) {
        let Some(call) = line.strip_prefix(&stub) else { return Err(format!("its Makefile runs {line:?} as well")) };
        calls.push(call_of(call, copy, headers, release)?);
    }
    let Some(first) = calls.first() else { return Err("its Makefile calls no kbuild by $(MAKE)".into()) };
    if let Some(other) = calls.iter().find(|c| *c != first) {
        return Err(format!("its Makefile calls kbuild with {first:?} and with {other:?}"));
    }
    let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
    let given: BTreeSet<String> = own.variables.iter().map(name).collect();
    let known = |name: &str| ANYWAY.contains(&name) || given.contains(name);
    let env = fs::read(&exported).map_err(|e| format!("what its Makefile exports is not known: {e}"))?;
    let env = String::from_utf8_lossy(&env).into_owned();
    for variable in env.split('\0').filter(|v| !v.is_empty()) {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        let mut more = value.split_whitespace().filter_map(|w| w.split_once('=')).map(|(n, _)| n);
        let odd = if name == "MAKEFLAGS" { more.find(|n| !known(n)) } else { Some(name).filter(|n| !known(n)) };
        if let Some(odd) = odd {
            return Err(format!("its Makefile exports {odd} to kbuild"));
        }
    }
    // Those of the command line are kbuild's as well, unless the call says otherwise.
    let mut all: Vec<String> = own.variables.iter().filter(|v| !v.starts_with("KERNELRELEASE=")).cloned().collect();
    all.retain(|v| first.iter().all(|c| name(c) != name(v)));
    all.extend(first.iter().cloned());
    Ok(all)
}

/// The variables of a call of kbuild.
fn call_of(call: &str, copy: &Path, headers: &Path, release: &str) -> Result<Vec<String>, String> {
    let same = |a: &str, b: &Path| Path::new(a).canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    let installed = [format!("/lib/modules/{release}/build"), format!("/usr/src/linux-headers-{release}")];
    let is_headers = |dir: &str| same(dir, headers) || installed.iter().any(|i| i == dir.trim_end_matches('/'));
    let (mut at, mut folder, mut found) = (false, false, Vec::new());
    let call = call.replace(['\'', '"'], "");
    let mut words = call.split_whitespace();
    while let Some(word) = words.next() {
        if let Some(dir) = word.strip_prefix("-C") {
            let dir = if dir.is_empty() { words.next().unwrap_or_default() } else { dir };
            if !is_headers(dir) {
                return Err(format!("its Makefile calls kbuild in {dir}, which are not the headers of {release}"));
            }
            at = true;
        } else if let Some(dir) = word.strip_prefix("M=").or_else(|| word.strip_prefix("SUBDIRS=")) {
            if !same(dir, copy) {
                return Err(format!("its Makefile calls kbuild for {dir:?}, and not for its own folder"));
            }
            folder = true;
        } else if word.contains('=') {
            found.extend(handed_on(word, release)?);
        } else if word != "modules" && word != "all" && word != "-s" {
            return Err(format!("its Makefile calls kbuild with {word}"));
        }
    }
    if at && folder { Ok(found) } else { Err("its Makefile calls make otherwise than with -C HEADERS M=FOLDER".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_makefile_does_beside_calling_kbuild_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (copy, headers) = (dir.path().join("copy"), dir.path().join("headers"));
        [&copy, &headers].iter().for_each(|d| fs::create_dir(d).unwrap());
        let h = headers.display().to_string();
        let ask = |text: &str, variables: &[&str], goals: &[&str]| {
            fs::write(copy.join("Makefile"), text).unwrap();
            let all = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
            let own = OwnCall { variables: all(variables), goals: all(goals) };
            super::variables(&own, &copy, &headers, "6.1.0-1", &Log::default()).map(|v| v.join(" "))
        };
        let kernel = format!("KERNEL={h}");
        let plain = "all:\n\t@$(MAKE) -C $(KERNEL) M=$(CURDIR) modules\n";
        for (text, variables, want) in [
            (plain.to_owned(), vec![kernel.as_str()], kernel.clone()),
            (plain.replace("$(CURDIR)", "$(PWD)"), vec![&kernel, "A=1"], format!("{kernel} A=1")),
            (plain.replace("modules", "A=2 modules"), vec![&kernel, "A=1"], format!("{kernel} A=2")),
            (plain.replace("$(KERNEL)", "/lib/modules/$(KVER)/build"), vec!["KVER=6.1.0-1"], "KVER=6.1.0-1".into()),
            (
                format!("ifneq ($(KERNELRELEASE),)\n{plain}endif\n"),
                vec![&kernel, "KERNELRELEASE=6.1.0-1"],
                kernel.clone(),
            ),
        ] {
            assert_eq!(ask(&text, &variables, &[]).as_deref(), Ok(&*want), "{text}");
        }
        for (text, word) in [
            (plain.replace("all:\n", "all:\n\t./configure\n"), "./configure"),
            (plain.replace("all:\n", "all: x.h\nx.h:\n\techo > x.h\n").replace("\t@$", "all:\n\t@$"), "echo > x.h"),
            (plain.replace("@$(MAKE)", "@cd sub && $(MAKE)"), "cd sub"),
            (plain.replace("$(MAKE)", "make"), "make -C"),
            (format!("export MORE := 1\n{plain}"), "exports MORE"),
            (format!("MAKEFLAGS += MORE=1\n{plain}"), "MORE"),
            (plain.replace("M=$(CURDIR)", "M=$(CURDIR)/.."), "not for its own folder"),
            (plain.replace("$(KERNEL)", "/"), "not the headers"),
            (plain.replace("modules", "KCFLAGS=-DX modules"), "KCFLAGS=-DX"),
            (plain.replace("modules", "clean"), "with clean"),
            (format!("{plain}\t$(MAKE) -C $(KERNEL) M=$(CURDIR) A=1\n"), "and with"),
            ("all:\n".to_owned(), "Nothing to be done"),
            ("all:\n\t$(MAKE) modules\n".to_owned(), "otherwise than"),
            (String::new(), "make"),
        ] {
            let e = ask(&text, &[&kernel], &[]).unwrap_err();
            assert!(e.contains(word), "{text}: {e}");
        }
        assert!(!copy.join("x.h").exists(), "nothing was made");
    }
}
