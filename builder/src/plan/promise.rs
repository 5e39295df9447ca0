//! An address of the patch that the kernel keeps, or may.

use std::fmt;

use serde::Serialize;

/// An address that may outlive the patch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Promise {
    /// The object of the function.
    pub object: String,
    /// The function that gives the address away.
    pub function: String,
    /// Offset of the instruction in it.
    pub offset: u64,
    /// What the address is of: a symbol, or the string.
    pub symbol: String,
    /// What the function does with it, as a sentence about the function.
    pub what: String,
    /// The kernel keeps it. Otherwise nobody knows.
    pub certain: bool,
    /// It is on the stack of a task that runs no function of the patch: no callback can take it back.
    #[serde(skip)]
    pub on_a_stack: bool,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}+{:#x} {}", self.object, self.function, self.offset, self.what)
    }
}
