//! Two whole kernels: files, or trees that have one, with the modules beside them. What differs of both is one patch.

use std::path::{Path, PathBuf};

use crate::annotate::Debug;
use crate::annotate::Images;
use crate::debuginfo::DebugInfo;
use crate::error::{Error, Place, Result};
use crate::holder::VMLINUX;
use crate::kernel::KernelImage;
use crate::pipeline;
use crate::plan::Options;
use crate::whole::{Backing, Form, Whole};

use super::{Ask, Outcome, conclude, inputs, modules};
use crate::codes;

/// The two kernels, if that is what was given.
pub fn kernels(old: &Path, new: &Path) -> Result<Option<(PathBuf, PathBuf)>> {
    const KERNEL: &str = VMLINUX;
    if old.is_dir() && new.is_dir() && old.join(KERNEL).is_file() && new.join(KERNEL).is_file() {
        return Ok(Some((old.join(KERNEL), new.join(KERNEL))));
    }
    Ok(inputs::are_whole(old, new)?.then(|| (old.to_owned(), new.to_owned())))
}

/// Compares two kernels, and the modules beside them when trees were given.
pub(super) fn compare(ask: &Ask<'_>, old_path: &Path, new_path: &Path, options: &Options) -> Result<Outcome> {
    let mut compared = modules::Compared::default();
    if ask.old.is_dir() {
        compared = modules::compare(ask.old, ask.new, options)?;
        let differ = compared.differing.iter().map(|s| s.name.clone()).collect();
        let (objects, unseen) = inputs::unlinked(ask.old, ask.new, &differ, options)?;
        compared.differing.extend(objects);
        compared.alone.extend(unseen);
    }
    let (old, new) = rayon::join(|| Backing::open(old_path), || Backing::open(new_path));
    let (old, new) = (old?, new?);
    let (old_whole, new_whole) = rayon::join(|| old.whole(), || new.whole());
    let (mut old_whole, mut new_whole) = (old_whole?, new_whole?);
    old_whole.fit(&new_whole);
    new_whole.fit(&old_whole);
    let kernel = match (ask.kernel, old_whole.form) {
        (Some(path), Form::Relocatable) => Some(Backing::open(path)?),
        (None, Form::Relocatable) if ask.output.is_some() => {
            let what = "a relocatable vmlinux.o has no addresses; name the running kernel with --kernel";
            return Err(Error::new(codes::LP3007, Place::object(old_path.display().to_string()), what));
        }
        _ => None,
    };
    let mut kernel_whole = kernel.as_ref().map(Backing::whole).transpose()?;
    if let Some(kernel) = &mut kernel_whole {
        kernel.fit(&old_whole);
    }
    let infos = if ask.no_debug_info { None } else { debug(&old, &old_whole).zip(debug(&new, &new_whole)) };
    let images = Images {
        old: &old_whole,
        new: &new_whole,
        kernel: kernel_whole.as_ref(),
        debug: infos.as_ref().map(|(old, new)| Debug { old, new }),
    };
    let mut analysis = pipeline::analyse_whole(images, &compared.differing, options)?;
    drop(infos);
    drop((old_whole, new_whole, kernel_whole));
    if ask.output.is_some() {
        let (a, b) = rayon::join(|| crate::hash::digest(old.file()), || crate::hash::digest(new.file()));
        if let Some(first) = analysis.digests.first_mut() {
            *first = (a, b);
        }
        for (digests, source) in analysis.digests.iter_mut().skip(1).zip(&compared.differing) {
            *digests = (crate::hash::digest(&source.old), crate::hash::digest(&source.new));
        }
    }
    let open = || match (ask.kernel, &kernel) {
        (Some(path), None) => {
            let given = KernelImage::open(path)?;
            let own = old.kernel()?;
            if given.build_id() != own.build_id() {
                let what = format!("its build id is not that of {}", old_path.display());
                return Err(Error::new(codes::LP3007, Place::object(path.display().to_string()), what));
            }
            Ok(Some(own))
        }
        (Some(_), Some(kernel)) => kernel.kernel().map(Some),
        (None, _) if ask.output.is_none() && old.form() == Form::Relocatable => Ok(None),
        (None, _) => old.kernel().map(Some),
    };
    if modules::concerned(&analysis).is_empty() {
        return Ok(Outcome { modules: compared.alone, ..conclude(analysis, open, options)? });
    }
    // Without a folder to write, modules are held against no file.
    let kernel = if ask.kernel.is_some() || ask.output.is_some() { open()? } else { None };
    let outcome = modules::finish(ask, analysis, kernel.as_ref(), &compared.differing, options)?;
    Ok(Outcome { modules: compared.alone, ..outcome })
}

fn debug<'f>(file: &'f Backing, whole: &Whole<'_>) -> Option<DebugInfo<'f>> {
    DebugInfo::open_relocatable(file.elf(), &|i| whole.section_address(i))
}
