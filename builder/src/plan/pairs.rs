//! Pairs: one object, or one image, in both builds.

use std::path::{Path, PathBuf};

use crate::bounded;
use crate::compare::{Comparer, Verdicts};
use crate::correlate::Pairs;
use crate::error::Result;
use crate::holder::{HolderName, Placement};
use crate::symbolize::Object;

/// One object in both builds, as read from disk.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path relative to the tree, or the file name.
    pub name: String,
    /// Where the old object was read from, for messages.
    pub old_path: PathBuf,
    /// Where the new object was read from.
    pub new_path: PathBuf,
    /// The old build.
    pub old: Vec<u8>,
    /// The new build.
    pub new: Vec<u8>,
    /// Who has the old code.
    pub holder: HolderName,
}

impl Source {
    /// Reads both builds of one object.
    ///
    /// # Errors
    /// Those of [`Error::io`].
    pub fn read(name: impl Into<String>, old: &Path, new: &Path) -> Result<Self> {
        let read = |path: &Path| bounded::read(path, bounded::LARGE);
        let (old_path, new_path) = (old.to_owned(), new.to_owned());
        let holder = HolderName::Vmlinux;
        Ok(Self { name: name.into(), old: read(old)?, new: read(new)?, old_path, new_path, holder })
    }
}

/// Index of an object pair in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairId(pub u32);

/// One object in both builds, compared.
#[derive(Debug)]
pub struct ObjectPair {
    /// Path relative to the tree.
    pub name: String,
    /// The old build.
    pub old: Object,
    /// The new build.
    pub new: Object,
    /// Which is which.
    pub pairs: Pairs,
    /// What became of each atom.
    pub verdicts: Verdicts,
    /// Who has the old code.
    pub holder: HolderName,
    /// Where the old atoms are in the kernel, if that is known already.
    pub placement: Option<Placement>,
}

impl ObjectPair {
    /// For asking whether two references agree.
    pub fn comparer(&self) -> Comparer<'_> {
        Comparer { old: &self.old, new: &self.new, pairs: &self.pairs }
    }
}
