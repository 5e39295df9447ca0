//! The output folder of `lpbuild diff`: written beside its place first, then moved there in one step.
//!
//! A symbolic patch (no `--kernel`) also keeps the compared objects, so that `lpbuild pack --kernel` can bind it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::backend::detour::Runtime;
use crate::emit::Output;
use crate::error::{Error, Place, Result};
use crate::explain::{self, Explanation};
use crate::hash::digest;
use crate::holder::{HolderName, ModuleBinary, ModuleHolder, ModuleImages, Running};
use crate::plan::Source;
use crate::plan::manifest::Manifest;

use super::modules;
use crate::bounded;
use crate::codes;
use crate::error::refuse;
use crate::kernel::KernelImage;
use crate::pack;
use crate::pipeline;
use crate::plan::Options;
use crate::source::module_tree::{GivenModules, ModuleTree};

const MANIFEST: &str = "manifest.toml";
const PATCH: &str = "patch.o";
const OBJECTS: &str = "objects";

/// Writes a patch folder; an older one in the same place is replaced, anything else is not touched.
pub fn write(dir: &Path, output: &Output, objects: &[Source]) -> Result<()> {
    put(dir, |new| fill(new, output, objects))
}

/// The same with a finished folder, which may be on another file system.
pub fn replace(dir: &Path, finished: &Path) -> Result<()> {
    put(dir, |new| copy(finished, new))
}

/// Whether a folder may be written or replaced: it is not there yet, is empty, or is a patch folder.
pub fn may_write(dir: &Path) -> Result<()> {
    if dir.exists()
        && let Some(other) = not_ours(dir)?
    {
        let what = format!("the output folder has {other:?}, which is no part of a patch folder; it was left alone");
        return Err(Error::new(codes::LP1103, Place::object(dir.display().to_string()), what));
    }
    Ok(())
}

fn put(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    may_write(dir)?;
    let parent = match dir.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, &e))?;
    // As a folder that is made in its place would be.
    let all = std::fs::Permissions::from_mode(0o777);
    let mut builder = tempfile::Builder::new();
    let beside = builder.prefix(".lpbuild-").permissions(all);
    let beside = || beside.tempdir_in(parent).map_err(|e| Error::io(parent, &e));
    let new = beside()?;
    fill(new.path())?;
    let replaced = if dir.exists() {
        let replaced = beside()?;
        std::fs::rename(dir, replaced.path().join("old")).map_err(|e| Error::io(dir, &e))?;
        Some(replaced)
    } else {
        None
    };
    std::fs::rename(new.path(), dir).map_err(|e| {
        // Nothing was there, or what was there comes back.
        if let Some(replaced) = &replaced {
            let _ = std::fs::rename(replaced.path().join("old"), dir);
        }
        Error::io(dir, &e)
    })?;
    // It is no longer there to be removed.
    let _ = new.keep();
    Ok(())
}

/// Something in a folder that no patch folder has; what is replaced as a whole must be ours as a whole.
fn not_ours(dir: &Path) -> Result<Option<String>> {
    let text = std::fs::read_to_string(dir.join(MANIFEST)).unwrap_or_default();
    let module = Manifest::parse(&text, MANIFEST).map(|m| format!("{}.ko", m.patch.name)).unwrap_or_default();
    let is_patch = dir.join(MANIFEST).is_file();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, &e))? {
        let name = entry.map_err(|e| Error::io(dir, &e))?.file_name().to_string_lossy().into_owned();
        let known = [MANIFEST, PATCH, OBJECTS, explain::FILE, "build.log", &module].contains(&name.as_str());
        if !is_patch || !known {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| Error::io(to, &e))?;
    for entry in std::fs::read_dir(from).map_err(|e| Error::io(from, &e))? {
        let entry = entry.map_err(|e| Error::io(from, &e))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            std::fs::copy(&source, &target).map_err(|e| Error::io(&target, &e))?;
        }
    }
    Ok(())
}

fn fill(dir: &Path, output: &Output, objects: &[Source]) -> Result<()> {
    let put = |path: PathBuf, bytes: &[u8]| std::fs::write(&path, bytes).map_err(|e| Error::io(&path, &e));
    put(dir.join(PATCH), &output.patch_o)?;
    put(dir.join(MANIFEST), output.manifest.to_toml()?.as_bytes())?;
    if let Some(why) = &output.why {
        put(dir.join(explain::FILE), why.as_bytes())?;
    }
    for source in objects {
        for (side, bytes) in [("old", &source.old), ("new", &source.new)] {
            let path = dir.join(OBJECTS).join(side).join(&source.name);
            let parent = path.parent().unwrap_or(dir);
            std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, &e))?;
            put(path, bytes)?;
        }
    }
    Ok(())
}

/// Reads the manifest of a patch folder.
pub fn manifest(dir: &Path) -> Result<Manifest> {
    let path = dir.join(MANIFEST);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, &e))?;
    Manifest::parse(&text, &path.display().to_string())
}

/// What a patch folder tells of its patch; of one without `why.json`, what its manifest tells.
///
/// # Errors
/// Those of [`Error::io`]; LP1001, LP1101, LP1112.
pub fn explanation(dir: &Path) -> Result<Explanation> {
    let manifest = manifest(dir)?;
    let path = dir.join(explain::FILE);
    let record = match bounded::read(&path, bounded::TEXT) {
        Ok(bytes) => Some(explain::stored::parse(&bytes, &manifest, &path.display().to_string())?),
        Err(_) if !path.exists() => None,
        Err(e) => return Err(e),
    };
    Ok(Explanation::of(manifest, record))
}

/// Is a symbolic manifest the one that its objects give?
fn same(dir: &Path, manifest: &Manifest, again: &Manifest) -> Result<()> {
    if manifest == again {
        return Ok(());
    }
    let (is, gives) = (manifest.to_toml()?, again.to_toml()?);
    let (is, gives) = is.lines().zip(gives.lines()).find(|(a, b)| a != b).unwrap_or(("one of them", "ends"));
    let what = format!("the objects beside it do not give this manifest: {is:?} instead of {gives:?}");
    Err(Error::new(codes::LP4013, Place::object(dir.join(MANIFEST).display().to_string()), what))
}

/// Reads the compared objects of a symbolic patch folder and checks that they are still the ones the manifest names.
fn objects(dir: &Path, manifest: &Manifest) -> Result<Vec<Source>> {
    let mut out = Vec::new();
    for input in &manifest.inputs {
        let inside = !input.source.starts_with('/') && !input.source.split('/').any(|p| p == "..");
        if !inside {
            let what = format!("the input {:?} is not a path inside the folder", input.source);
            return Err(Error::new(codes::LP1101, Place::object(dir.join(MANIFEST).display().to_string()), what));
        }
        let old_path = dir.join(OBJECTS).join("old").join(&input.source);
        let new_path = dir.join(OBJECTS).join("new").join(&input.source);
        let old = std::fs::read(&old_path).map_err(|e| Error::io(&old_path, &e))?;
        let new = std::fs::read(&new_path).map_err(|e| Error::io(&new_path, &e))?;
        if digest(&old) != input.old_sha256 || digest(&new) != input.new_sha256 {
            let what = format!("{} is not the object the manifest was made from", input.source);
            return Err(Error::new(codes::LP1101, Place::object(dir.join(MANIFEST).display().to_string()), what));
        }
        out.push(Source { name: input.source.clone(), old_path, new_path, old, new, holder: HolderName::Vmlinux });
    }
    Ok(out)
}

/// Binds a symbolic patch folder to a kernel: its objects are compared again, and the outcome is what somebody read in it.
///
/// # Errors
/// LP1101, LP4013, and whatever is refused on the way.
pub fn bind(dir: &Path, kernel: &Path) -> Result<Output> {
    let given = manifest(dir)?;
    pack::check_hash(dir, &given)?;
    let objects = objects(dir, &given)?;
    let options = Options { explain: true, ..Options::of(&given) };
    let mut analysis = pipeline::analyse(&objects, &options)?;
    refuse(std::mem::take(&mut analysis.refused))?;
    same(dir, &given, &pipeline::produce(&mut analysis, None, &options)?.manifest)?;
    let kernel = KernelImage::open(kernel)?;
    pipeline::produce(&mut analysis, Some(&kernel), &options)
}

/// Holds a bound patch folder against the kernel it is for, and against the files of its modules where those of that kernel are.
///
/// # Errors
/// LP3009 where the file of a module is not found, and what [`pack::check`] has.
pub fn check(dir: &Path, kernel: &Path, headers: Option<&Path>, files: &[PathBuf]) -> Result<()> {
    let given = manifest(dir)?;
    let kernel = KernelImage::open(kernel)?;
    let modules = if given.holders.is_empty() { Vec::new() } else { modules_of(&given, &kernel, headers, files)? };
    pack::check(&Runtime::default(), dir, Running { kernel: &kernel, modules: &modules })
}

/// The modules that a manifest names.
fn modules_of(
    manifest: &Manifest,
    kernel: &KernelImage,
    headers: Option<&Path>,
    named: &[PathBuf],
) -> Result<Vec<ModuleHolder>> {
    let mut given = BTreeMap::new();
    for path in named {
        let name = ModuleBinary::read(path)?.name;
        if manifest.holders.iter().all(|h| h.name != name) {
            let what = format!("it is the module {name}, of which the patch has nothing");
            return Err(Error::new(codes::LP3009, Place::object(path.display().to_string()), what));
        }
        given.insert(HolderName::named(&name), path.clone());
    }
    let files = GivenModules { given, tree: ModuleTree::of(kernel.release())? };
    let images = ModuleImages::of(kernel, &files, modules::symvers(kernel.release(), headers)?);
    manifest.holders.iter().map(|h| images.open(&files.modfile(&HolderName::named(&h.name))?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_file_of_somebody_else_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d");
        let fill = |new: &Path| -> Result<()> {
            std::fs::create_dir_all(new).unwrap();
            std::fs::write(new.join(MANIFEST), "schema = 2\n").unwrap();
            std::fs::write(new.join(PATCH), "").unwrap();
            Ok(())
        };
        put(&dir, fill).unwrap();
        put(&dir, fill).unwrap();
        std::fs::write(dir.join("precious"), "mine").unwrap();
        let e = put(&dir, fill).unwrap_err();
        assert!(e.to_string().contains("\"precious\""), "{e}");
        assert_eq!(std::fs::read_to_string(dir.join("precious")).unwrap(), "mine");
    }
}
