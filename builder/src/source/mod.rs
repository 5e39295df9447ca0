//! From a source patch to pairs of objects: the first phases of `lpbuild build`.
//!
//! ```text
//! locate     release, paths -> Target        image, headers, source, configuration, compiler; that they belong together
//! patch      patches, source -> SourceChange applied in memory
//! tree       Target -> Tree                  configured and prepared once, cached
//! touched    SourceChange -> Touched         the objects concerned; what cannot be patched is refused before any compile
//! compile    Touched -> pairs of objects     by the commands kbuild names; unchanged lines keep their numbers
//! ```
//!
//! Each line is a phase with a time in the report. Nothing but the cache is written until everything has succeeded.

pub mod authors;
pub mod compile;
pub mod concern;
pub mod debian;
pub(crate) mod diagnostics;
pub mod elsewhere;
pub mod external;
mod generated;
pub mod includes;
pub mod kbuild;
pub mod lines;
pub mod locate;
mod makefiles;
pub mod module_tree;
pub mod outline;
pub mod pairs;
pub mod patch;
pub mod shadow;
pub mod touched;
pub mod tree;
pub mod unit;

/// Is told what a build is doing.
pub trait Progress: Sync + std::fmt::Debug {
    /// Something that may take a while begins.
    fn status(&self, text: &str);
    /// This many objects are going to be read, to see which a changed header concerns.
    fn reading(&self, _total: usize) {}
    /// This many objects are going to be compiled.
    fn objects(&self, _total: usize) {}
    /// One of them is done.
    fn object(&self, _name: &str) {}
}

/// Nobody is told.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn status(&self, _text: &str) {}
}
