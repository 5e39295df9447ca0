//! The plan, written for the runtime: what the detour adds to the patch object.

use std::collections::HashMap;

use super::dispatch::{self, Entrances};
use super::modules::Modules;
use super::needs::Needs;
use super::{functions, records};
use crate::bind::Bound;
use crate::correlate::NewAtom;
use crate::emit::{BackEnd, Base, Layout, Outside, Spot, Writer};
use crate::error::Result;
use crate::holder::HolderName;
use crate::kernel::module::is_in_area;
use crate::plan::manifest as m;
use crate::plan::{Analysis, Options, PairId};

/// One patch on its way into the object.
#[derive(Debug)]
pub struct Lowering<'a> {
    pub(super) analysis: &'a Analysis,
    pub(super) bound: Option<&'a Bound<'a>>,
    pub(super) needs: Option<Needs>,
    pub(super) options: &'a Options,
    /// Known once they are written.
    pub(super) entrances: HashMap<(PairId, NewAtom), Entrances>,
    /// Known when the records are written.
    pub(super) modules: Modules,
}

impl<'a> Lowering<'a> {
    /// For a kernel, or for none yet.
    pub fn new(analysis: &'a Analysis, bound: Option<(&'a Bound<'a>, Needs)>, options: &'a Options) -> Self {
        let (bound, needs) = bound.unzip();
        Self { analysis, bound, needs, options, entrances: HashMap::new(), modules: Modules::default() }
    }
}

impl BackEnd for Lowering<'_> {
    fn entrances(
        &mut self,
        w: &mut Writer,
        layout: &Layout,
        holder: &HolderName,
    ) -> Result<HashMap<(PairId, NewAtom), Spot>> {
        let own = dispatch::place(w, self, layout, holder)?;
        let originals = own.iter().map(|(key, e)| (*key, e.resume)).collect();
        self.entrances.extend(own);
        Ok(originals)
    }

    fn outside(&self, address: u64) -> Outside {
        match self.bound {
            Some(_) if is_in_area(address) => Outside::Late(address),
            Some(bound) => {
                Outside::Symbol(Base::Extern(bound.holder.anchor.symbol.into()), bound.holder.anchored(address))
            }
            None => Outside::Symbol(Base::Absolute("unbound".into(), address), 0),
        }
    }

    fn records(&mut self, w: &mut Writer, layout: &Layout) -> Result<()> {
        self.modules = records::write(w, self, layout)?;
        Ok(())
    }

    fn functions(&self) -> Vec<m::Function> {
        functions::describe(self.analysis, self.bound)
    }

    fn holders(&self) -> Vec<m::HolderEntry> {
        self.modules.describe()
    }

    fn imports(&self) -> Vec<m::BoundImport> {
        let Some((bound, needs)) = self.bound.zip(self.needs.as_ref()) else { return Vec::new() };
        let import = |(import, address): &(lpbuild_abi::Import, Option<u64>)| m::BoundImport {
            symbol: import.name.to_owned(),
            anchor_offset: address.map(|a| bound.holder.anchored(a)),
        };
        needs.imports.iter().map(import).collect()
    }
}
