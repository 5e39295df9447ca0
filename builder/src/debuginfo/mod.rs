//! Debug information (DWARF 2 to 5) of whole images and single objects: source lines, inlined functions, the function a
//! static variable belongs to, and types whose layout differs between two builds.
//!
//! A kernel has hundreds of megabytes of it, so nothing is read before a question needs it: the first question walks the unit
//! headers, and of the units only those are parsed that hold what was asked for. The answers stay cached.
//!
//! Nothing is refused and nothing panics: debug information that is absent or damaged answers `None`, or nothing.
//!
//! ```no_run
//! use lpbuild::debuginfo::DebugInfo;
//!
//! let image = std::fs::read("vmlinux").unwrap();
//! if let Some(info) = DebugInfo::open(&image)
//!     && let Some(function) = info.function_at(0xffff_ffff_8100_0000)
//! {
//!     println!("{} is declared in {:?}", function.name, function.file);
//! }
//! ```

use std::ops::Range;
use std::sync::OnceLock;

mod alike;
mod changes;
mod entries;
mod functions;
mod layout;
mod lines;
mod paths;
mod reach;
mod sections;
mod signatures;
mod spelling;
mod units;
mod variables;

pub use changes::{TypeChange, User, changed_types};
pub use functions::{FunctionInfo, Inlined};
pub use lines::Line;
pub use signatures::{Prototype, Signatures};
pub use units::UnitInfo;
pub use variables::Scope;

use sections::Sections;

/// A unit (DWARF 5, 3.1): what the compiler made of one source file. Its number in the order of `.debug_info`; an id of one
/// [`DebugInfo`] means nothing to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit(u32);

/// Where the sections of a relocatable object are put, so that no two share an address.
pub fn section_address(index: usize) -> Option<u64> {
    Some((index as u64) << 32)
}

/// Debug information of one ELF file, borrowed from its bytes. Questions may come from several threads.
pub struct DebugInfo<'d> {
    sections: Sections<'d>,
    units: OnceLock<Vec<units::Cell>>,
    /// Code by address as `.debug_aranges` has it.
    aranges: OnceLock<units::Aranges>,
    /// The same with the units `.debug_aranges` leaves out.
    ranges: OnceLock<Vec<units::Owned>>,
    /// Folder of the sources.
    source_root: OnceLock<String>,
    /// Candidates for variables by address.
    variables: OnceLock<Vec<variables::Candidate>>,
}

impl<'d> DebugInfo<'d> {
    /// Opens an ELF file for x86-64; reads section headers only. `None` when it has no debug information.
    ///
    /// In a relocatable file every section counts as placed at 0, so an address is an offset in a section and ambiguous as
    /// soon as there are several; [`DebugInfo::open_relocatable`] keeps them apart.
    pub fn open(elf: &'d [u8]) -> Option<Self> {
        Self::open_relocatable(elf, &|_| Some(0))
    }

    /// Opens a file whose sections are placed at `section_addresses` (by section index) if it is relocatable. What lies in a
    /// section without an address is not found.
    pub fn open_relocatable(elf: &'d [u8], section_addresses: &dyn Fn(usize) -> Option<u64>) -> Option<Self> {
        Some(Self {
            sections: Sections::open(elf, section_addresses)?,
            units: OnceLock::new(),
            aranges: OnceLock::new(),
            ranges: OnceLock::new(),
            source_root: OnceLock::new(),
            variables: OnceLock::new(),
        })
    }
}

impl DebugInfo<'_> {
    /// Is it that of more than one object?
    fn is_large(&self) -> bool {
        self.sections.bytes(sections::Kind::Info).len() > LARGE
    }
}

impl std::fmt::Debug for DebugInfo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DebugInfo").field("units", &self.units.get().map(Vec::len)).finish_non_exhaustive()
    }
}

/// Bytes of `.debug_info` that are worth more threads than one.
const LARGE: usize = 1 << 22;

/// Is the address in one of the ranges?
fn within(ranges: &[Range<u64>], address: u64) -> bool {
    ranges.iter().any(|r| r.contains(&address))
}

/// What is kept in `cell`, made in parallel at the first question. Not within `get_or_init`: a thread that waits for others there
/// may take up work that asks the same and would wait for itself. Two threads may make it twice.
fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    match cell.get() {
        Some(known) => known,
        None => {
            let made = make();
            cell.get_or_init(|| made)
        }
    }
}
