//! Where the atoms of an old object are in their holder, and whether the code there is theirs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::codes::{self, Code};
use crate::ingest::SectionId;
use crate::symbolize::AtomId;

/// Why something cannot be taken for what the holder has.
pub type Doubt = (&'static Code, String);

/// Where the atoms of one old object are.
#[derive(Clone, Debug)]
pub enum Placement {
    /// Found by comparing code, section by section ([`crate::bind::place`]).
    RunPre(Box<RunPre>),
    /// Known from the start: the object was taken out of the holder's image.
    Exact(Exact),
}

/// What run-pre matching found.
#[derive(Clone, Debug, Default)]
pub struct RunPre {
    /// Who has the code, for people.
    pub(crate) holder: String,
    pub(crate) bases: BTreeMap<SectionId, u64>,
    /// Section of each atom, and its offset there.
    pub(crate) starts: Vec<(SectionId, u64)>,
    pub(crate) names: Vec<String>,
    pub(crate) matched: BTreeSet<AtomId>,
    /// Data that has the image's content at its place.
    pub(crate) same_data: BTreeSet<AtomId>,
    pub(crate) mismatches: BTreeMap<AtomId, String>,
    pub(crate) overridden: BTreeSet<AtomId>,
    pub(crate) contradictions: BTreeMap<SectionId, (u64, u64)>,
    pub(crate) extern_contradictions: BTreeMap<String, (u64, u64)>,
    pub(crate) by_name_only: BTreeSet<SectionId>,
    pub(crate) externs: HashMap<String, u64>,
    pub(crate) constants: HashMap<Vec<u8>, u64>,
}

/// What is known of an object that was taken out of an image.
#[derive(Clone, Debug, Default)]
pub struct Exact {
    /// Address of each atom, and whether its code is the holder's.
    pub atoms: Vec<Option<(u64, bool)>>,
    /// Addresses of names.
    pub externs: HashMap<String, u64>,
    /// Addresses of strings and constants.
    pub constants: HashMap<Vec<u8>, u64>,
}

impl Placement {
    /// Address of an atom, if its section was placed.
    pub fn address(&self, id: AtomId) -> Option<u64> {
        match self {
            Self::RunPre(p) => p.address(id),
            Self::Exact(p) => p.atom(id).map(|a| a.0),
        }
    }
    /// Was its section placed by a name alone, without code that refers to it?
    pub fn is_by_name(&self, id: AtomId) -> bool {
        let Self::RunPre(p) = self else { return false };
        p.starts.get(id.0 as usize).is_some_and(|(s, _)| p.by_name_only.contains(s))
    }
    /// Is the atom's code the holder's code?
    ///
    /// # Errors
    /// LP3001, LP3002 or LP3004, and what was found.
    pub fn check(&self, id: AtomId) -> Result<(), Doubt> {
        match self {
            Self::RunPre(p) => p.check(id),
            Self::Exact(p) => match p.atom(id) {
                Some((_, true)) => Ok(()),
                Some((at, false)) => Err((codes::LP3001, format!("the kernel image has other code at {at:#x}"))),
                None => Err((codes::LP3001, "it was not found in the kernel image".into())),
            },
        }
    }
    /// Is it certain where the data is, and, if it is read-only, that it is the same?
    ///
    /// # Errors
    /// LP3001 or LP3002, and what was found.
    pub fn check_data(&self, id: AtomId, read_only: bool) -> Result<(), Doubt> {
        let Self::RunPre(p) = self else { return Ok(()) };
        let section = p.starts.get(id.0 as usize).map(|s| s.0);
        if let Some(&(a, b)) = section.and_then(|s| p.contradictions.get(&s)) {
            return Err((codes::LP3002, p.two_places(a, b)));
        }
        match p.mismatches.get(&id) {
            Some(why) if read_only => Err((codes::LP3001, why.clone())),
            _ => Ok(()),
        }
    }
    /// Is it certain where the data is, and that the holder has this content there?
    ///
    /// # Errors
    /// LP3001 or LP3002, and what was found.
    pub fn check_content(&self, id: AtomId) -> Result<(), Doubt> {
        self.check_data(id, true)?;
        let known = match self {
            Self::RunPre(p) => p.same_data.contains(&id),
            Self::Exact(p) => p.atom(id).is_some(),
        };
        if known { Ok(()) } else { Err((codes::LP3001, "nothing shows where it is".into())) }
    }
    /// Two addresses the holder's code shows for one undefined symbol.
    pub fn contradiction(&self, name: &str) -> Option<(u64, u64)> {
        match self {
            Self::RunPre(p) => p.contradiction(name),
            Self::Exact(_) => None,
        }
    }
    /// Address of an undefined symbol, as the holder's code refers to it.
    pub fn extern_address(&self, name: &str) -> Option<u64> {
        match self {
            Self::RunPre(p) => p.externs.get(name).copied(),
            Self::Exact(p) => p.externs.get(name).copied(),
        }
    }
    /// Addresses of strings and constants, by content.
    pub fn constants(&self) -> &HashMap<Vec<u8>, u64> {
        match self {
            Self::RunPre(p) => &p.constants,
            Self::Exact(p) => &p.constants,
        }
    }
    /// Number of functions proven equal, and of those that differ.
    pub fn counts(&self) -> (usize, usize) {
        match self {
            Self::RunPre(p) => (p.matched.len(), p.mismatches.len()),
            Self::Exact(p) => {
                let proven = p.atoms.iter().flatten().filter(|a| a.1).count();
                (proven, p.atoms.iter().flatten().count() - proven)
            }
        }
    }
}

impl RunPre {
    /// Address of an atom, if its section was placed.
    pub(crate) fn address(&self, id: AtomId) -> Option<u64> {
        let (section, start) = self.starts.get(id.0 as usize)?;
        Some(self.base(*section)?.wrapping_add(*start))
    }
    fn check(&self, id: AtomId) -> Result<(), Doubt> {
        let Some((section, _)) = self.starts.get(id.0 as usize) else {
            return Err((codes::LP3001, format!("it was not found in {}", self.holder)));
        };
        if let Some(&(a, b)) = self.contradictions.get(section) {
            return Err((codes::LP3002, self.two_places(a, b)));
        }
        if self.overridden.contains(&id) {
            return Err((codes::LP3004, format!("{} has another function under this name", self.holder)));
        }
        match self.mismatches.get(&id) {
            Some(why) => Err((codes::LP3001, why.clone())),
            None if self.matched.contains(&id) => Ok(()),
            None => Err((codes::LP3001, format!("{} was not found in {}", self.names[id.0 as usize], self.holder))),
        }
    }
    fn two_places(&self, a: u64, b: u64) -> String {
        match a == b {
            true => format!("the code shows its section at {a:#x}, where {} has other names", self.holder),
            false => format!("its section would be both at {a:#x} and at {b:#x}"),
        }
    }
    /// Two addresses the code shows for one undefined symbol.
    pub(crate) fn contradiction(&self, name: &str) -> Option<(u64, u64)> {
        self.extern_contradictions.get(name).copied()
    }
    /// Where the section is.
    pub(crate) fn base(&self, section: SectionId) -> Option<u64> {
        self.bases.get(&section).copied()
    }
    /// Is the section at two places at once?
    pub(crate) fn is_contradicted(&self, section: SectionId) -> bool {
        self.contradictions.contains_key(&section)
    }
    /// Do the bytes of code or data agree with the image?
    pub(crate) fn agrees(&self, id: AtomId) -> bool {
        self.matched.contains(&id) || self.same_data.contains(&id)
    }
    /// Why an atom is not what the image has.
    pub(crate) fn mismatch(&self, id: AtomId) -> Option<&str> {
        self.mismatches.get(&id).map(String::as_str)
    }
}

impl Exact {
    fn atom(&self, id: AtomId) -> Option<(u64, bool)> {
        self.atoms.get(id.0 as usize).copied().flatten()
    }
}
