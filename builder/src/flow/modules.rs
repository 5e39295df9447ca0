//! The modules beside two kernels: paired by name, compared as objects. Patches of modules cannot be packed, so all that
//! comes out is what differs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Place, Result};
use crate::holder::HolderName;
use crate::pipeline;
use crate::plan::Options;
use crate::plan::Source;
use crate::report::{ModuleReport, Report};
use rayon::prelude::*;

use super::inputs::{below, io};
use crate::codes;

/// Compares the modules of two trees; those that are the same are left out.
pub fn compare(old: &Path, new: &Path, options: &Options) -> Result<Vec<ModuleReport>> {
    let (olds, news) = (modules(old)?, modules(new)?);
    let mut out: Vec<ModuleReport> = olds
        .par_iter()
        .filter_map(|(name, path)| pair(name, path, news.get(name)?, options).transpose())
        .collect::<Result<_>>()?;
    for (mine, other, side) in [(&olds, &news, "old"), (&news, &olds, "new")] {
        let alone = mine.keys().filter(|n| !other.contains_key(*n));
        out.extend(alone.map(|n| ModuleReport { module: n.clone(), only_in: Some(side), ..ModuleReport::default() }));
    }
    out.sort_by(|a, b| a.module.cmp(&b.module));
    Ok(out)
}

/// By file name: a kernel has no two modules of one name.
fn modules(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    for ending in ["xz", "zst", "gz"] {
        let packed = below(root, ending)?.into_keys().find(|name| name.ends_with(&format!(".ko.{ending}")));
        if let Some(name) = packed {
            let what = "the modules of this tree are compressed; unpack them, or compare the two vmlinux files alone";
            return Err(Error::new(codes::LP2004, Place::object(name), what));
        }
    }
    let all = below(root, "ko")?;
    Ok(all.into_values().filter_map(|p| Some((p.file_name()?.to_string_lossy().into_owned(), p))).collect())
}

fn pair(name: &str, old_path: &Path, new_path: &Path, options: &Options) -> Result<Option<ModuleReport>> {
    let read = |p: &Path| std::fs::read(p).map_err(|e| io(p, &e));
    let (old, new) = (read(old_path)?, read(new_path)?);
    if old == new {
        return Ok(None);
    }
    let source = Source {
        name: name.to_owned(),
        old_path: old_path.to_owned(),
        new_path: new_path.to_owned(),
        old,
        new,
        holder: HolderName::Vmlinux,
    };
    let report = Report::of(&pipeline::analyse(&[source], options)?);
    if report.changed.is_empty() && report.refused.is_empty() {
        return Ok(None);
    }
    let mut codes: Vec<&'static str> = report.refused.iter().map(|p| p.code.id).collect();
    codes.sort_unstable();
    codes.dedup();
    let changed = report.changed.into_iter().map(|c| c.symbol).collect();
    Ok(Some(ModuleReport { module: name.to_owned(), changed, codes, only_in: None }))
}
