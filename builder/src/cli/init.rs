//! `lpbuild init`: writes a `livepatch.toml` to start from.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lpbuild::config::Template;
use lpbuild::error::{Error, Place, Result};
use lpbuild::host::Host;

use super::{diff::patch_name, terminal};
use lpbuild::codes;

/// Write a commented livepatch.toml for the running kernel, with every key explained.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Folder to write it to, made when it is not there [default: .]; a patch file here is taken as the first PATCH
    dir: Option<PathBuf>,
    /// Patch files to build
    #[arg(value_name = "PATCH")]
    patches: Vec<PathBuf>,
    /// Name of the patch [default: from the first patch file, else from the folder]
    #[arg(long, value_name = "NAME", value_parser = patch_name)]
    name: Option<String>,
    /// Kernel release it is for [default: the running kernel]
    #[arg(long, value_name = "RELEASE")]
    release: Option<String>,
    /// Overwrite a livepatch.toml that is there
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(args: &InitArgs, host: &Host) -> Result<ExitCode> {
    let mut patches = args.patches.clone();
    let dir = match &args.dir {
        Some(file) if is_patch(file) => {
            patches.insert(0, file.clone());
            PathBuf::from(".")
        }
        Some(dir) => dir.clone(),
        None => PathBuf::from("."),
    };
    let release = args.release.clone().unwrap_or_else(|| host.release());
    let text = Template { name: args.name.clone(), release, patches }.text(&dir)?;
    fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, &e))?;
    let path = dir.join("livepatch.toml");
    write(&path, &text, args.force)?;
    terminal::print(|out| writeln!(out, "{}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn is_patch(path: &Path) -> bool {
    path.is_file() || path.extension().is_some_and(|e| e == "patch" || e == "diff")
}

fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let mut how = OpenOptions::new();
    how.write(true).truncate(true).create(true).create_new(!force);
    match how.open(path).and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            Err(Error::new(codes::LP6010, Place::object(path.display().to_string()), "not overwritten"))
        }
        Err(e) => Err(Error::io(path, &e)),
    }
}
