//! What kallsyms knows, indexed by address and by name.
//!
//! Input: symbols from [`super::kallsyms_tables`], and of data from [`super::symtab`] where kallsyms has none. Output:
//! [`Kallsyms`]. kallsyms holds neither sizes nor file names; a
//! size is guessed as the distance to the next symbol, padding included. Nothing is refused.

use std::collections::HashSet;

/// First address of the kernel's own range; what is below does not slide with KASLR.
pub const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;

/// One symbol of the kernel image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSymbol {
    /// Link-time address; for per-CPU symbols of most kernels the offset into the per-CPU area.
    pub addr: u64,
    /// Type letter as `nm` prints it: lower case for local symbols.
    pub kind: u8,
    /// Name.
    pub name: Box<str>,
    /// The running kernel lists it as well; otherwise it comes from the symbol table of the file.
    pub listed: bool,
}

impl KernelSymbol {
    /// True for per-CPU offsets and other absolute values: they are below the image and do not slide with KASLR.
    pub fn is_percpu(&self) -> bool {
        self.addr < IMAGE_BASE
    }
    /// True for code.
    pub fn is_text(&self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W')
    }
    /// True when the symbol was local to its file (the letter of weak symbols does not say).
    pub fn is_local(&self) -> bool {
        self.kind.is_ascii_lowercase() && !matches!(self.kind, b'w' | b'v' | b'u')
    }
}

/// Every symbol of the image, in address order; equal addresses stay in the order of the image.
#[derive(Debug, Default)]
pub struct Kallsyms {
    by_addr: Vec<KernelSymbol>,
    /// Positions in `by_addr`, sorted by name, then by position.
    by_name: Vec<u32>,
}

impl Kallsyms {
    pub(super) fn new(mut symbols: Vec<KernelSymbol>) -> Self {
        symbols.sort_by_key(|s| s.addr);
        let mut keyed: Vec<(&str, u32)> = symbols.iter().zip(0u32..).map(|(s, i)| (&*s.name, i)).collect();
        keyed.sort_unstable();
        let by_name = keyed.into_iter().map(|(_, i)| i).collect();
        Self { by_addr: symbols, by_name }
    }

    /// Every symbol in address order.
    pub fn into_symbols(self) -> Vec<KernelSymbol> {
        self.by_addr
    }

    /// With those of `more` that are not among them, by name and address.
    pub(super) fn with(self, more: Vec<KernelSymbol>) -> Self {
        let mut symbols = self.by_addr;
        let known: HashSet<(u64, &str)> = symbols.iter().map(|s| (s.addr, &*s.name)).collect();
        let new: Vec<KernelSymbol> = more.into_iter().filter(|s| !known.contains(&(s.addr, &*s.name))).collect();
        symbols.extend(new);
        Self::new(symbols)
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.by_addr.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.by_addr.is_empty()
    }

    /// Every symbol in address order.
    pub fn iter(&self) -> std::slice::Iter<'_, KernelSymbol> {
        self.by_addr.iter()
    }

    /// Every symbol called `name`, in address order: the order sympos counts.
    pub fn named<'s>(&'s self, name: &str) -> impl ExactSizeIterator<Item = &'s KernelSymbol> + Clone + use<'s> {
        let first = self.by_name.partition_point(|&i| self.name_of(i) < name);
        let count = self.by_name.get(first..).unwrap_or_default().partition_point(|&i| self.name_of(i) == name);
        let range = self.by_name.get(first..first.saturating_add(count)).unwrap_or_default();
        // Every position is below the number of symbols, so the length of the slice is the number of items.
        range.iter().map(|&i| self.symbol(i))
    }

    /// Every symbol whose name begins so, in address order.
    pub fn beginning(&self, prefix: &str) -> Vec<&KernelSymbol> {
        let first = self.by_name.partition_point(|&i| self.name_of(i) < prefix);
        let rest = self.by_name.get(first..).unwrap_or_default();
        let count = rest.partition_point(|&i| self.name_of(i).starts_with(prefix));
        let mut found: Vec<u32> = rest.get(..count).unwrap_or_default().to_vec();
        // Positions are in address order.
        found.sort_unstable();
        found.into_iter().map(|i| self.symbol(i)).collect()
    }

    /// Every symbol of one of these names, or of a clone or piece of what is called so (`name.part.0`), in address order.
    pub fn families(&self, names: &[&str]) -> Vec<&KernelSymbol> {
        let family = |name: &&str| self.named(name).chain(self.beginning(&format!("{name}."))).collect::<Vec<_>>();
        let mut found: Vec<&KernelSymbol> = names.iter().flat_map(family).collect();
        // Equal addresses stay in the order of the image, which is that of the list.
        found.sort_unstable_by_key(|s| (s.addr, std::ptr::from_ref(*s)));
        found.dedup_by_key(|s| std::ptr::from_ref(*s));
        found
    }

    /// Every symbol exactly at `addr`.
    pub fn at(&self, addr: u64) -> &[KernelSymbol] {
        let first = self.by_addr.partition_point(|s| s.addr < addr);
        let rest = self.by_addr.get(first..).unwrap_or_default();
        rest.get(..rest.partition_point(|s| s.addr == addr)).unwrap_or_default()
    }

    /// The nearest symbol at or below `addr` (the first of them, when several share its address) and the distance in
    /// bytes. Addresses in the image never lead to a per-CPU symbol.
    pub fn containing(&self, addr: u64) -> Option<(&KernelSymbol, u64)> {
        let behind = self.by_addr.partition_point(|s| s.addr <= addr);
        let last = self.by_addr.get(behind.checked_sub(1)?)?;
        let first = self.at(last.addr).first()?;
        ((first.addr >= IMAGE_BASE) == (addr >= IMAGE_BASE)).then(|| (first, addr.saturating_sub(first.addr)))
    }

    /// The address of the next symbol above `addr`.
    pub fn next_above(&self, addr: u64) -> Option<u64> {
        self.by_addr.get(self.by_addr.partition_point(|s| s.addr <= addr)).map(|s| s.addr)
    }

    /// The distance from `addr` to the next symbol above: at least the size of what begins there.
    pub fn size_guess(&self, addr: u64) -> Option<u64> {
        self.next_above(addr)?.checked_sub(addr)
    }

    /// The position of `symbol` among those of its name, as kernel livepatch counts: from 1, or 0 for a unique name.
    pub fn sympos(&self, symbol: &KernelSymbol) -> Option<u32> {
        let mut same = self.named(&symbol.name).filter(|s| s.listed);
        if same.clone().count() == 1 {
            return same.next().filter(|s| s.addr == symbol.addr).map(|_| 0);
        }
        same.zip(1u32..).find(|(s, _)| s.addr == symbol.addr).map(|(_, n)| n)
    }

    fn symbol(&self, position: u32) -> &KernelSymbol {
        &self.by_addr[position as usize]
    }

    fn name_of(&self, position: u32) -> &str {
        &self.symbol(position).name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(symbols: &[(u64, u8, &str)]) -> Kallsyms {
        Kallsyms::new(
            symbols
                .iter()
                .map(|&(addr, kind, name)| KernelSymbol { addr, kind, name: name.into(), listed: true })
                .collect(),
        )
    }

    #[test]
    fn names_of_the_file_are_added_once_and_do_not_count() {
        let base = IMAGE_BASE + 0x100_0000;
        let extra = |addr, name: &str| KernelSymbol { addr, kind: b'd', name: name.into(), listed: false };
        let k = table(&[(base, b'T', "_text"), (base + 0x40, b't', "twice"), (base + 0x60, b'd', "known")]);
        let k =
            k.with(vec![extra(base + 0x20, "twice"), extra(base + 0x60, "known"), extra(base + 0x80, "text_mutex")]);
        assert_eq!(k.len(), 5);
        assert_eq!(k.named("text_mutex").map(|s| s.addr - base).collect::<Vec<_>>(), [0x80]);
        let function = k.named("twice").find(|s| s.is_text()).unwrap();
        assert_eq!(k.sympos(function), Some(0), "the running kernel has one of this name");
    }

    #[test]
    fn lookups() {
        let base = IMAGE_BASE + 0x100_0000;
        let k = table(&[
            (0x40, b'A', "pcpu"),
            (base, b'T', "_text"),
            (base, b'T', "_stext"),
            (base + 0x40, b't', "dup"),
            (base + 0x80, b'd', "dup"),
            (base + 0x90, b'W', "weak"),
        ]);
        assert_eq!(k.len(), 6);
        assert_eq!(k.named("dup").map(|s| s.addr - base).collect::<Vec<_>>(), [0x40, 0x80]);
        assert_eq!(k.named("nosuch").len(), 0);
        assert_eq!(k.at(base).iter().map(|s| &*s.name).collect::<Vec<_>>(), ["_text", "_stext"]);
        assert!(k.at(base + 1).is_empty());
        assert_eq!(k.containing(base + 7).map(|(s, d)| (&*s.name, d)), Some(("_text", 7)));
        assert_eq!(k.containing(u64::MAX).map(|(s, _)| &*s.name), Some("weak"));
        assert_eq!(k.containing(0x50).map(|(s, d)| (&*s.name, d)), Some(("pcpu", 0x10)));
        assert_eq!(k.containing(base - 1), None, "a per-CPU symbol does not reach into the image");
        assert_eq!(k.containing(0), None);
        assert_eq!(k.size_guess(base), Some(0x40));
        assert_eq!(k.next_above(base + 0x90), None);
        let positions: Vec<_> = k.iter().map(|s| k.sympos(s)).collect();
        assert_eq!(positions, [Some(0), Some(0), Some(0), Some(1), Some(2), Some(0)]);
        assert!(k.iter().next().is_some_and(|s| s.is_percpu() && !s.is_text()));
        assert!(k.named("weak").all(|s| s.is_text() && !s.is_local() && !s.is_percpu()));
    }
}
