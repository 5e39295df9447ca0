//! `--save-dir`: everything a build depends on, for bug reports, with a script that repeats it.
//!
//! ```text
//! patches/N-NAME           livepatch.toml, if there was one, beside it
//! vmlinuz config           of the kernel
//! objects/old objects/new  the compared objects that differ, and lists of those that are parts of modules, as kbuild writes them
//! build.log                every command and what it wrote
//! versions.txt             lpbuild, kernel, compiler and binutils
//! why.json                 what was decided, with lines of the source
//! modules/NAME.ko          files of modules that were held against something, compressed or not
//! source.toml              what of the patches was left out or accepted before anything was compared
//! replay.sh                compares, binds and packs these objects again
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::patches::Built;
use crate::accept::Accepted;
use crate::bounded;
use crate::codes;
use crate::config::Config;
use crate::error::{Error, Place, Result};
use crate::holder::HolderName;
use crate::plan::Options;
use crate::plan::manifest::{Jump, LeftOut};
use crate::tool::{self, Log};

/// Folder of the lists of what modules consist of. No source has one of this name, so that no list is taken for one of an object.
const LISTS: &str = "lpbuild-modules";

/// What a manifest says of the source patches, which objects do not tell.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OfSource {
    /// What was left out.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// What was accepted.
    #[serde(default)]
    pub accepted: Vec<Accepted>,
}

impl OfSource {
    /// Reads what was saved.
    ///
    /// # Errors
    /// LP1001, and LP1104 for what is no such file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = bounded::read(path, bounded::TEXT)?;
        toml::from_str(&String::from_utf8_lossy(&bytes))
            .map_err(|e| Error::new(codes::LP1104, Place::object(path.display().to_string()), e.message().to_owned()))
    }

    /// Puts it into options.
    pub fn apply(self, options: &mut Options) {
        (options.left_out, options.accepted) = (self.left_out, self.accepted);
    }
}

/// What is known before the build has got anywhere.
pub fn inputs(dir: &Path, config: &Config, log: &Log) -> Result<()> {
    if fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some()) {
        let what = "--save-dir takes an empty folder, or a name for one; it was left alone";
        return Err(Error::new(codes::LP1103, Place::object(dir.display().to_string()), what));
    }
    let patches = dir.join("patches");
    fs::create_dir_all(&patches).map_err(|e| Error::io(&patches, &e))?;
    for (index, patch) in config.patches.iter().enumerate() {
        let name = patch.file_name().unwrap_or_default().to_string_lossy();
        copy(patch, &patches.join(format!("{:02}-{name}", index.saturating_add(1))))?;
    }
    if let Some(file) = &config.file {
        copy(file, &dir.join("livepatch.toml"))?;
    }
    let mut versions = format!("lpbuild {}\n", env!("CARGO_PKG_VERSION"));
    for program in ["make", "ld", "uname"] {
        let flag = if program == "uname" { "-a" } else { "--version" };
        let text = log.run(tool::command(program).arg(flag), codes::LP4005).unwrap_or_default();
        versions.push_str(text.lines().next().unwrap_or(""));
        versions.push('\n');
    }
    write(dir, "versions.txt", versions.as_bytes())?;
    write(dir, "build.log", log.text().as_bytes())
}

/// The same with the kernel and the objects.
pub fn all(dir: &Path, config: &Config, built: &Built, log: &Log) -> Result<()> {
    inputs(dir, config, log)?;
    copy(&built.image, &dir.join("vmlinuz"))?;
    copy(&built.config, &dir.join("config"))?;
    for source in &built.sources {
        for (side, bytes) in [("old", &source.old), ("new", &source.new)] {
            write(dir, &format!("objects/{side}/{}", source.name), bytes)?;
        }
    }
    let mut lists: BTreeMap<&HolderName, String> = BTreeMap::new();
    for source in built.sources.iter().filter(|s| s.holder != HolderName::Vmlinux) {
        let list = lists.entry(&source.holder).or_default();
        list.push_str(&source.name);
        list.push('\n');
    }
    for (module, list) in &lists {
        for side in ["old", "new"] {
            write(dir, &format!("objects/{side}/{LISTS}/{module}.mod"), list.as_bytes())?;
        }
    }
    let mut more = Vec::new();
    for (module, path) in &built.modules {
        // What it is compressed with is part of its name.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = format!("modules/{module}.{}", name.split_once('.').map_or("ko", |(_, ending)| ending));
        fs::create_dir_all(dir.join("modules")).map_err(|e| Error::io(dir, &e))?;
        copy(path, &dir.join(&file))?;
        more.extend(["--module".to_owned(), file]);
    }
    let of_source = OfSource { left_out: built.left_out.clone(), accepted: built.accepted.clone() };
    if !of_source.left_out.is_empty() || !of_source.accepted.is_empty() {
        let text =
            toml::to_string(&of_source).map_err(|e| Error::new(codes::LP1000, Place::default(), e.to_string()))?;
        write(dir, "source.toml", text.as_bytes())?;
        more.extend(["--of-source", "source.toml"].map(str::to_owned));
    }
    // It has lines of the source, which the objects alone do not tell.
    let why = built.outcome.as_ref().and_then(|o| o.patch.as_ref()?.why.as_ref());
    if let Some(why) = why {
        write(dir, "why.json", why.as_bytes())?;
    }
    let script = format!(
        "#!/bin/sh\n\
         # Compares, binds and packs the saved objects of the patch {name} for {release} again.\n\
         # LPBUILD names the program, HEADERS the kernel headers when they are elsewhere than at the time of the build.\n\
         set -eu\n\
         cd \"$(dirname \"$0\")\"\n\
         HEADERS=${{HEADERS:-{headers}}}\n\
         \"${{LPBUILD:=lpbuild}}\" diff objects/old objects/new --kernel vmlinuz --headers \"$HEADERS\" -o replayed \\\n\
         \x20   {options}\n\
         {why}\
         \"$LPBUILD\" pack replayed --headers \"$HEADERS\"\n",
        name = config.options.name,
        why = if why.is_some() { "cp why.json replayed/\n" } else { "" },
        release = built.release,
        options = flags(config).iter().chain(&more).map(|o| quoted(o)).collect::<Vec<_>>().join(" "),
        headers = quoted(&built.headers.display().to_string()),
    );
    write(dir, "replay.sh", script.as_bytes())?;
    let path = dir.join("replay.sh");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(|e| Error::io(&path, &e))
}

/// What `lpbuild diff` is told about the patch.
fn flags(config: &Config) -> Vec<String> {
    let jump = if config.options.jump == Jump::Abs64 { "abs64" } else { "rel32" };
    let (deadline, patience) =
        (config.options.deadline_ms.map(|ms| ms.to_string()), config.options.patience_ms.to_string());
    let mut options = Vec::new();
    for (option, value) in [
        ("--name", config.options.name.as_str()),
        ("--patch-version", &config.options.version),
        ("--patch-description", &config.options.description),
        ("--patience-ms", &patience),
        ("--jump", jump),
    ] {
        options.extend([option.to_owned(), value.to_owned()]);
    }
    if let Some(deadline) = deadline {
        options.extend(["--deadline-ms".to_owned(), deadline]);
    }
    if let Some(mode) = config.options.mode {
        options.extend(["--mode".to_owned(), mode.name().to_owned()]);
    }
    for (option, names) in [("--after", &config.options.after), ("--replaces", &config.options.replaces)] {
        options.extend(names.iter().flat_map(|name| [option.to_owned(), name.clone()]));
    }
    if config.options.oneshot {
        options.push("--oneshot".to_owned());
    }
    for name in &config.options.data {
        options.extend(["--data".to_owned(), name.clone()]);
    }
    for (callback, function) in config.options.callbacks.all() {
        options.extend(["--callback".to_owned(), format!("{}={function}", callback.name())]);
    }
    for (kind, name) in config.options.accept.iter() {
        options.extend(["--accept".to_owned(), format!("{}={name}", kind.name())]);
    }
    options
}

/// One word of the shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,/:+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(|e| Error::io(from, &e))
}

fn write(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path: PathBuf = dir.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, &e))?;
    }
    fs::write(&path, content).map_err(|e| Error::io(&path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_says_everything_of_the_patch_as_words_of_the_shell() {
        let dir = tempfile::tempdir().unwrap();
        let patch = dir.path().join("fix.patch");
        fs::write(&patch, "x").unwrap();
        let mut config = Config::default_for(&[patch]).unwrap();
        let plain = "--name fix --patch-version 1 --patch-description '' --patience-ms 15000 --jump rel32";
        let words = |c: &Config| flags(c).iter().map(|o| quoted(o)).collect::<Vec<_>>().join(" ");
        assert_eq!(words(&config), plain);
        config.options.description = "it's $(x)".into();
        config.options.version = "1;2".into();
        config.options.mode = Some(crate::plan::manifest::Mode::Drain);
        (config.options.after, config.options.replaces) = (vec!["a".into()], vec!["b".into(), "c".into()]);
        config.options.oneshot = true;
        (config.options.deadline_ms, config.options.patience_ms) = (Some(500), 90);
        config.options.callbacks.set(crate::plan::manifest::Callback::PreApply, "f".into());
        config.options.data = vec!["fs/a.o:t".into()];
        config.options.accept.add(crate::accept::Accept::Type, "struct a");
        let all = "--name fix --patch-version '1;2' --patch-description 'it'\\''s $(x)' --patience-ms 90 --jump rel32 \
                   --deadline-ms 500 --mode drain --after a --replaces b --replaces c --oneshot --data fs/a.o:t --callback pre-apply=f --accept 'type=struct a'";
        assert_eq!(words(&config), all);
    }
}
