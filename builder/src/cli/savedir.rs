//! `--save-dir`: everything a build depends on, for bug reports, with a script that repeats it.
//!
//! ```text
//! patches/N-NAME           livepatch.toml, if there was one, beside it
//! vmlinuz config           of the kernel
//! objects/old objects/new  the compared objects that differ
//! build.log                every command and what it wrote
//! versions.txt             lpbuild, kernel, compiler and binutils
//! replay.sh                compares, binds and packs these objects again
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use lpbuild::build::flow::Built;
use lpbuild::config::Config;
use lpbuild::error::{Error, Place, Result};
use lpbuild::tool::{self, Log};

/// What is known before the build has got anywhere.
pub fn inputs(dir: &Path, config: &Config, log: &Log) -> Result<()> {
    if fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some()) {
        let what = "--save-dir takes an empty folder, or a name for one; it was left alone";
        return Err(Error::new("LP1001", Place::object(dir.display().to_string()), what));
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
        let text = log.run(tool::command(program).arg(flag), "LP4005").unwrap_or_default();
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
    let jump = if config.jump == lpbuild::manifest::Jump::Abs64 { "abs64" } else { "rel32" };
    let script = format!(
        "#!/bin/sh\n\
         # Compares, binds and packs the saved objects of the patch {name} for {release} again.\n\
         # HEADERS names the kernel headers when they are elsewhere than at the time of the build.\n\
         set -eu\n\
         cd \"$(dirname \"$0\")\"\n\
         lpbuild diff objects/old objects/new --kernel vmlinuz -o replayed \\\n\
         \x20   --name {name} --patch-version {version} --deadline-ms {deadline} --jump {jump}\n\
         lpbuild pack replayed --headers \"${{HEADERS:-{headers}}}\"\n",
        name = config.name,
        release = built.release,
        version = config.version,
        deadline = config.deadline_ms,
        headers = built.headers.display(),
    );
    write(dir, "replay.sh", script.as_bytes())?;
    let path = dir.join("replay.sh");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(|e| Error::io(&path, &e))
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
