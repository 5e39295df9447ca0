//! The debug information of two objects, opened when the first question is asked, and the declarations in it.

use std::sync::OnceLock;

use super::{Declarations, Declared, DeclaredSide};
use crate::debuginfo::{DebugInfo, section_address};
use crate::ingest::SectionId;

/// The files of both objects.
#[derive(Debug)]
pub struct Files<'d> {
    bytes: [&'d [u8]; 2],
    opened: [OnceLock<Option<DebugInfo<'d>>>; 2],
    lines_kept: bool,
}

impl<'d> Files<'d> {
    /// `lines_kept`: unchanged lines have the same numbers in both, and no others have.
    pub fn new(old: &'d [u8], new: &'d [u8], lines_kept: bool) -> Self {
        Self { bytes: [old, new], opened: [OnceLock::new(), OnceLock::new()], lines_kept }
    }

    fn side(&self, index: usize) -> Option<&DebugInfo<'d>> {
        let open = || DebugInfo::open_relocatable(self.bytes[index], &section_address);
        self.opened[index].get_or_init(open).as_ref()
    }

    /// That of both, if both have some.
    pub fn both(&self) -> Option<[&DebugInfo<'d>; 2]> {
        Some([self.side(0)?, self.side(1)?])
    }
}

impl Declarations for Files<'_> {
    fn of(&self, side: DeclaredSide, section: SectionId, offset: u64) -> Option<Declared> {
        let index = usize::from(side == DeclaredSide::New);
        let info = self.side(index)?;
        let address = section_address(section.0 as usize)?.checked_add(offset)?;
        let scope = info.variable_scope(address)?;
        let (function, file, function_line) = (scope.function, scope.file, scope.function_line);
        let function_lines = if self.lines_kept { None } else { info.variable_frame(address) };
        Some(Declared { function, file, line: scope.line?, function_line, function_lines })
    }

    fn lines_kept(&self) -> bool {
        self.lines_kept
    }
}
