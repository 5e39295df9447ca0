//! The image's own tables of per-instruction entries: which entries an address range has there.
//!
//! Input: the sections between the linker script's start and stop symbols (include/asm-generic/vmlinux.lds.h,
//! arch/x86/kernel/vmlinux.lds.S). Output: entries by the address their first field means. At rest they are as the linker
//! left them, the exception and fentry tables sorted by address (scripts/sorttable.c); the kernel sorts and rewrites the
//! others when it boots. The two tables of unwind entries are sorted together. A table whose ends kallsyms does not list is not known, and says nothing.
//! In a module a table is the section of its name, in the order of the objects; one that is not there has no entries.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::field;
use crate::kernel::{KernelImage, KernelSection};
use crate::symbolize::{Entry, Table};

/// Address of the instruction each entry is for, and of the entry, in order.
#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<(u64, u64)>,
    /// For unwind entries: where the table lies whose entries belong to these, in the same order.
    beside: Option<(u64, u64)>,
}

impl Index {
    /// The entries for instructions in a range.
    pub(super) fn within(&self, range: Range<u64>) -> &[(u64, u64)] {
        let from = self.entries.partition_point(|e| e.0 < range.start);
        let to = self.entries.partition_point(|e| e.0 < range.end);
        self.entries.get(from..to).unwrap_or(&[])
    }

    /// The entries that hold at an address: those of the greatest address not above it.
    pub(super) fn holding(&self, address: u64) -> &[(u64, u64)] {
        let behind = self.entries.partition_point(|e| e.0 <= address);
        let last = self.entries.get(..behind).and_then(<[_]>::last).map_or(address, |e| e.0);
        self.within(last..last.saturating_add(1))
    }

    /// Where what belongs to the unwind entry at `at` is: behind its address in an [`Entry`], elsewhere in the image.
    pub(super) fn unwind(&self, at: u64) -> Option<u64> {
        let (first, table) = self.beside?;
        Some(table.wrapping_add(at.wrapping_sub(first) / ORC_IP * ORC_ENTRY))
    }
}

/// Bytes of an entry of `.orc_unwind_ip`, and of one of `.orc_unwind` (struct orc_entry).
const ORC_IP: u64 = 4;
const ORC_ENTRY: u64 = 6;

/// Tables by kind and name, and by the form of their entries; nothing for one that the image does not have.
type Read = HashMap<(Table, String, usize, u8), Option<Arc<Index>>>;

/// Tables of an image, read when they are first asked for, and kept with it.
pub(super) struct Tables<'k> {
    kernel: &'k KernelImage,
    read: Arc<Mutex<Read>>,
}

impl<'k> Tables<'k> {
    pub(super) fn of(kernel: &'k KernelImage) -> Self {
        Self { kernel, read: kernel.derived(Mutex::default) }
    }

    /// The table that entries like this one are in, of an object whose section has this name.
    pub(super) fn like(&self, entry: &Entry, section: &str) -> Option<Arc<Index>> {
        let width = entry.refs.first().map_or(0, |r| r.width);
        let key = (entry.table, section.to_owned(), entry.bytes.len(), width);
        let read = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = read().get(&key) {
            return known.clone();
        }
        let index = self.index(entry, section).map(Arc::new);
        read().insert(key, index.clone());
        index
    }

    /// Where the entries of a table lie.
    fn range(&self, table: Table, section: &str) -> Option<Range<u64>> {
        let (start, stop) = ends(table, section)?;
        if self.kernel.module().is_some() {
            return Some(self.kernel.section_named(section).map_or(0..0, KernelSection::range));
        }
        Some(self.one(&start)?..self.one(&stop)?)
    }

    fn index(&self, like: &Entry, section: &str) -> Option<Index> {
        let Range { start: from, end: to } = self.range(like.table, section)?;
        if from == to {
            return Some(Index { entries: Vec::new(), beside: None });
        }
        let bytes = self.kernel.read(from, usize::try_from(to.checked_sub(from)?).ok()?)?;
        let first = like.refs.first().filter(|r| r.at == 0)?;
        let orc = like.table == Table::OrcIp;
        let unwind = || match self.kernel.module() {
            Some(_) => self.kernel.section_named(".orc_unwind").map(|s| s.addr),
            None => self.one("__start_orc_unwind"),
        };
        let beside = if orc { Some((from, unwind()?)) } else { None };
        let size = if orc { ORC_IP as usize } else { like.bytes.len() };
        let mut entries = Vec::with_capacity(bytes.len() / size.max(1));
        for (entry, at) in bytes.chunks_exact(size.max(1)).zip((from..).step_by(size.max(1))) {
            entries.push((field::decoded(entry.get(..usize::from(first.width))?, first, at)?, at));
        }
        entries.sort_unstable();
        Some(Index { entries, beside })
    }

    fn one(&self, name: &str) -> Option<u64> {
        let mut found = self.kernel.kallsyms().named(name);
        found.next().filter(|_| found.len() == 0).map(|s| s.addr)
    }
}

/// The symbols around a table. Not known: which ENDBRs a single object may seal.
fn ends(table: Table, section: &str) -> Option<(String, String)> {
    let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
    match table {
        Table::Alternatives => pair("__alt_instructions", "__alt_instructions_end"),
        Table::Paravirt => pair("__parainstructions", "__parainstructions_end"),
        Table::SmpLocks => pair("__smp_locks", "__smp_locks_end"),
        Table::Retpolines => pair("__retpoline_sites", "__retpoline_sites_end"),
        Table::Returns => pair("__return_sites", "__return_sites_end"),
        Table::Calls => pair("__call_sites", "__call_sites_end"),
        Table::Bugs => pair("__start___bug_table", "__stop___bug_table"),
        Table::Exceptions => pair("__start___ex_table", "__stop___ex_table"),
        Table::Jumps => pair("__start___jump_table", "__stop___jump_table"),
        Table::StaticCalls => pair("__start_static_call_sites", "__stop_static_call_sites"),
        Table::Fentry => pair("__start_mcount_loc", "__stop_mcount_loc"),
        Table::BootConstant | Table::BootShift => Some((format!("__start_{section}"), format!("__stop_{section}"))),
        Table::OrcIp => pair("__start_orc_unwind_ip", "__stop_orc_unwind_ip"),
        Table::EndbrSeal | Table::Orc => None,
    }
}
