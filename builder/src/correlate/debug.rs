//! Declarations out of the debug information of two objects, opened when the first question is asked.

use std::cell::OnceCell;

use super::{Declarations, Declared, DeclaredSide};
use crate::debuginfo::DebugInfo;
use crate::ingest::SectionId;

/// Bits for an offset in a section: every section gets a range of addresses of its own.
const OFFSET_BITS: u32 = 40;

/// The files of both objects.
#[derive(Debug)]
pub struct Files<'d> {
    bytes: [&'d [u8]; 2],
    opened: [OnceCell<Option<DebugInfo<'d>>>; 2],
    lines_kept: bool,
}

impl<'d> Files<'d> {
    /// `lines_kept`: unchanged lines have the same numbers in both, and no others have.
    pub fn new(old: &'d [u8], new: &'d [u8], lines_kept: bool) -> Self {
        Self { bytes: [old, new], opened: [OnceCell::new(), OnceCell::new()], lines_kept }
    }
}

impl Declarations for Files<'_> {
    fn of(&self, side: DeclaredSide, section: SectionId, offset: u64) -> Option<Declared> {
        let index = usize::from(side == DeclaredSide::New);
        let open = || DebugInfo::open_relocatable(self.bytes[index], &|i| Some((i as u64) << OFFSET_BITS));
        let info = self.opened[index].get_or_init(open).as_ref()?;
        let address = (u64::from(section.0) << OFFSET_BITS) + offset;
        let scope = info.variable_scope(address)?;
        let (function, file, function_line) = (scope.function, scope.file, scope.function_line);
        let function_lines = if self.lines_kept { None } else { info.variable_frame(address) };
        Some(Declared { function, file, line: scope.line?, function_line, function_lines })
    }

    fn lines_kept(&self) -> bool {
        self.lines_kept
    }
}
