//! Is `patch.o` what the new objects mean? Every carried function is compared with its source, instruction by instruction
//! and reference by reference, every table entry and unwind state too. Works on symbolic and on bound patches.

use std::collections::BTreeSet;

use lpbuild::kernel::KernelImage;

use super::image::Image;
use super::read::{Elf, Insn, Sym, Target, pc_relative, stride, width};

/// The kernel a patch is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    pub image: &'a Image,
    pub read: &'a KernelImage,
}

/// Everything a check needs.
#[derive(Debug)]
pub struct Patch<'a> {
    pub patch: Elf,
    /// The new objects by name.
    pub news: &'a [(String, Elf)],
    /// Functions of the old build that are replaced.
    pub replaced: BTreeSet<String>,
    pub kernel: Option<Kernel<'a>>,
}

const TEXT: &str = ".text.lpbuild";

/// Seals are decided for what is linked together, padding is listed for nobody, constants written at boot become loads.
const NOT_CARRIED: &[&str] = &[".ibt_endbr_seal", "__patchable_function_entries", "runtime_ptr_", "runtime_shift_"];

/// `x.12` and `x.13` are the same static variable as far as names go.
pub fn base(name: &str) -> String {
    if name.starts_with("__UNIQUE_ID_") {
        return name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').to_owned();
    }
    let is_number = |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    name.split('.').filter(|p| !is_number(p)).collect::<Vec<_>>().join(".")
}

/// Beginnings of originals and dispatchers: no source has them.
fn made(s: &Sym) -> bool {
    s.name.starts_with("lp_original_") || s.name.starts_with("lpbuild_dispatch_")
}

impl Patch<'_> {
    /// All names of a symbol of the new objects.
    fn aliases(&self, name: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::from([name.to_owned()]);
        for (_, elf) in self.news {
            for s in elf.symbols.iter().filter(|s| s.name == name && s.section.is_some()) {
                let same =
                    elf.symbols.iter().filter(|o| o.section == s.section && o.value == s.value && o.size == s.size);
                all.extend(same.map(|o| o.name.clone()));
            }
        }
        all
    }

    /// What a symbol of the new objects lies in, and how far.
    fn places(&self, name: &str) -> Vec<(String, i64)> {
        let defined = |elf: &Elf| {
            let symbol = elf.symbols.iter().find(|s| s.name == name)?;
            Some(elf.names_at(symbol.section?, symbol.value as i64))
        };
        self.news.iter().filter_map(|(_, elf)| defined(elf)).flatten().collect()
    }

    fn text(&self) -> usize {
        self.patch.section(TEXT).expect("the patch has code").0
    }

    /// The carried functions.
    pub fn functions(&self) -> Vec<&Sym> {
        let text = self.text();
        let code = |s: &&Sym| s.section == Some(text) && s.function && s.size > 0 && !made(s);
        self.patch.symbols.iter().filter(code).collect()
    }

    /// Checks everything; returns how many references were compared.
    pub fn check(&self) -> Result<usize, String> {
        let mut compared = 0;
        for left_out in NOT_CARRIED {
            if let Some(s) = self.patch.sections.iter().find(|s| s.name.starts_with(left_out)) {
                return Err(format!("the patch has {}", s.name));
            }
        }
        for s in &self.patch.sections {
            for (at, kind, target) in &s.relocs {
                if at + width(*kind) as u64 > s.data.len() as u64 {
                    return Err(format!("{}: a relocation at {at:#x} is outside", s.name));
                }
                if let Target::Section(t, o) = target {
                    let (t, o) =
                        (&self.patch.sections[*t], if pc_relative(*kind) && s.flags & 4 != 0 { o + 4 } else { *o });
                    if o < -4096 || o > t.size as i64 + 64 {
                        return Err(format!("{}+{at:#x} leads to {}+{o:#x}, outside it", s.name, t.name));
                    }
                }
            }
        }
        for s in self.patch.symbols.iter().filter(|s| s.section == Some(self.text()) && made(s)) {
            let state = unwind(&self.patch, self.text(), s.value);
            if state.as_ref().is_some_and(|state| state.iter().any(|b| *b != 0)) {
                return Err(format!("{} has the unwind state {state:02x?} of what is before it", s.name));
            }
        }
        for f in self.functions() {
            let (new, source) = self.source(f).ok_or_else(|| format!("{} is in no new object", f.name))?;
            if source.size != f.size {
                return Err(format!("{}: {} bytes became {}", f.name, source.size, f.size));
            }
            let a = new.code(source.section.unwrap(), source.value, source.size);
            let b = self.patch.code(self.text(), f.value, f.size);
            compared += self.same_code(new, &a, source, &b, f)?;
            compared += self.same_tables(new, source, f)?;
            self.same_unwinding(new, source, f, &b)?;
            self.same_padding(new, source, f)?;
        }
        Ok(compared)
    }

    /// What `__pfx_NAME` of the new object names lies before the function, and the function where calls expect it.
    fn same_padding(&self, new: &Elf, source: &Sym, f: &Sym) -> Result<(), String> {
        let name = format!("__pfx_{}", f.name);
        let Some(padding) = new.symbols.iter().find(|s| s.name == name && s.section == source.section) else {
            return Ok(());
        };
        let there = self.patch.named(&name).ok_or_else(|| format!("{name} is missing"))?;
        let at = (there.section, there.value + there.size, there.size);
        if at != (f.section, f.value, padding.size) || !f.value.is_multiple_of(16) {
            return Err(format!("{name} is {at:x?}, the function at {:#x}", f.value));
        }
        Ok(())
    }

    /// `mov $imm64,%reg` with a constant written at boot became `mov NAME(%rip),%reg` and padding. How many references
    /// were compared, if it is one.
    fn boot_constant(&self, new: &Elf, x: &Insn, y: &[Insn], source: &Sym, f: &Sym) -> Result<Option<usize>, String> {
        let named = |s: &&super::read::Sec| {
            let field = Target::Section(source.section.unwrap(), x.at as i64 + 2);
            s.name.starts_with("runtime_ptr_") && s.relocs.iter().any(|r| r.2 == field)
        };
        let Some(list) = new.sections.iter().find(named) else { return Ok(None) };
        let [load, rest @ ..] = y else { return Err("the load is missing".into()) };
        let decode = |insn: &Insn| iced_x86::Decoder::with_ip(64, &insn.bytes, 0, 0).decode();
        let (was, is) = (decode(x), decode(load));
        let fits = is.mnemonic() == iced_x86::Mnemonic::Mov
            && is.is_ip_rel_memory_operand()
            && (is.op0_register(), load.len) == (was.op0_register(), 7)
            && rest.first().is_some_and(|n| n.len == 3 && decode(n).mnemonic() == iced_x86::Mnemonic::Nop);
        let variable = Target::Extern(list.name["runtime_ptr_".len()..].to_owned(), 0);
        match &load.refs[..] {
            [r] if fits => self.same(new, &variable, false, &r.target, source, f).map(|()| Some(1)),
            _ => Err(format!("{:02x?} became {:02x?}, no load of {variable:?}", x.bytes, load.bytes)),
        }
    }

    fn source(&self, f: &Sym) -> Option<(&Elf, &Sym)> {
        self.news.iter().find_map(|(_, e)| {
            let found = e
                .symbols
                .iter()
                .find(|s| s.name == f.name && s.section.is_some_and(|i| e.sections[i].flags & 4 != 0))?;
            Some((e, found))
        })
    }

    fn same_code(&self, new: &Elf, a: &[Insn], source: &Sym, b: &[Insn], f: &Sym) -> Result<usize, String> {
        let mut compared = 0;
        let mut next = 0;
        for x in a {
            let at = x.at - source.value;
            let here = b.get(next..).unwrap_or(&[]);
            if let Some(n) =
                self.boot_constant(new, x, here, source, f).map_err(|e| format!("{}+{at:#x}: {e}", f.name))?
            {
                (compared, next) = (compared + n, next + 2);
                continue;
            }
            next += 1;
            let Some(y) = here.first() else { return Err(format!("{}+{at:#x} is missing", f.name)) };
            if x.bytes != y.bytes || x.refs.len() != y.refs.len() {
                return Err(format!("{}+{at:#x}: {:02x?} became {:02x?}", f.name, x.bytes, y.bytes));
            }
            for (p, q) in x.refs.iter().zip(&y.refs) {
                self.same(new, &p.target, p.branch, &q.target, source, f)
                    .map_err(|e| format!("{}+{at:#x}: {e}", f.name))?;
                compared += 1;
            }
        }
        if next != b.len() {
            return Err(format!("{}: {} instructions became {}", f.name, a.len(), b.len()));
        }
        Ok(compared)
    }

    /// Does `q` of the patch mean what `p` of the new object means?
    fn same(&self, new: &Elf, p: &Target, branch: bool, q: &Target, source: &Sym, f: &Sym) -> Result<(), String> {
        let text = self.text();
        let q = &self.through_island(q);
        let wrong = |what: String| Err(format!("{what} became {}", self.show(q)));
        match p {
            Target::Absolute(v) => {
                if *q == Target::Absolute(*v) {
                    Ok(())
                } else {
                    wrong(format!("the number {v:#x}"))
                }
            }
            // The runtime is linked to it later.
            Target::Extern(name, _) if lpbuild_abi::FOR_AUTHORS.contains(&name.as_str()) && branch => {
                if q == p {
                    Ok(())
                } else {
                    wrong(name.clone())
                }
            }
            Target::Extern(name, d) => {
                let names = self.aliases(name);
                if names.iter().any(|n| self.patch.named(n).is_some()) {
                    let here = |s, o| self.patch.names_at(s, o).iter().any(|(n, at)| at == d && names.contains(n));
                    let there = matches!(q, Target::Section(s, o) if here(*s, *o));
                    return if there || !branch && self.outside(q, name, *d) {
                        Ok(())
                    } else {
                        wrong(format!("{name}{d:+#x}"))
                    };
                }
                let inside = || self.places(name).iter().any(|(n, at)| self.outside(q, n, d + at));
                if self.outside(q, name, *d) || inside() { Ok(()) } else { wrong(format!("{name}{d:+#x}")) }
            }
            Target::Section(s, o) => {
                let section = &new.sections[*s];
                if section.flags & 0x10 != 0 {
                    let bytes = constant(section, *o)?;
                    let there = self.bytes(q, bytes.len());
                    return if there.as_deref() == Some(&bytes[..]) {
                        Ok(())
                    } else {
                        wrong(format!("the constant {bytes:02x?}"))
                    };
                }
                let own = o - source.value as i64;
                if Some(*s) == source.section && (0..source.size as i64).contains(&own) && (branch || own > 0) {
                    let there = *q == Target::Section(text, f.value as i64 + own);
                    return if there { Ok(()) } else { wrong(format!("+{own:#x} of the function itself")) };
                }
                let ids = section.name == ".BTF_ids";
                let names = if ids { new.list_at(*s, *o).into_iter().collect() } else { new.names_at(*s, *o) };
                let code = section.flags & 4 != 0;
                let fits = names.iter().any(|(name, d)| {
                    let address_taken = code && !branch && *d == 0;
                    let is_old = self.replaced.contains(name);
                    match self.patch.named(name) {
                        Some(_) if !(address_taken && is_old) => {
                            matches!(q, Target::Section(s, o) if self.patch.names_at(*s, *o).contains(&(name.clone(), *d)))
                        }
                        _ => self.outside(q, name, *d),
                    }
                });
                if fits || names.is_empty() { Ok(()) } else { wrong(format!("one of {names:x?}")) }
            }
        }
    }

    /// Is `q` the thing `name` of the kernel, at `d`?
    fn outside(&self, q: &Target, name: &str, d: i64) -> bool {
        match (q, self.kernel) {
            (Target::Extern(n, a), None) => base(n) == base(name) && *a == d,
            (Target::Extern(..) | Target::Absolute(_), Some(k)) => {
                let address = self.address(q).unwrap_or(0).wrapping_sub(d as u64);
                k.image.at.get(&address).is_some_and(|all| all.iter().any(|n| base(n) == base(name)))
            }
            _ => false,
        }
    }

    /// The address in the kernel.
    pub fn address(&self, q: &Target) -> Option<u64> {
        match q {
            Target::Extern(anchor, a) if anchor == "_printk" => {
                let (_, base) = self.kernel?.image.symbols.iter().find(|s| s.0 == "_printk")?;
                Some(base.wrapping_add(*a as u64))
            }
            Target::Absolute(v) => Some(*v),
            _ => None,
        }
    }

    fn bytes(&self, q: &Target, len: usize) -> Option<Vec<u8>> {
        match q {
            Target::Section(s, o) => Some(self.patch.sections[*s].data.get(*o as usize..*o as usize + len)?.to_vec()),
            _ => Some(self.kernel?.read.read(self.address(q)?, len)?.to_vec()),
        }
    }

    fn show(&self, q: &Target) -> String {
        match q {
            Target::Section(s, o) => {
                format!("{}+{o:#x} {:x?}", self.patch.sections[*s].name, self.patch.names_at(*s, *o))
            }
            _ => match (self.kernel, self.address(q)) {
                (Some(k), Some(a)) => format!("{a:#x} {:?}", k.image.at.get(&a)),
                _ => format!("{q:?}"),
            },
        }
    }

    /// A jump behind a function that only leads on.
    pub fn through_island(&self, q: &Target) -> Target {
        let Target::Section(s, o) = q else { return q.clone() };
        let section = &self.patch.sections[*s];
        if *s != self.text() || section.data.get(*o as usize) != Some(&0xe9) {
            return q.clone();
        }
        let in_function = self.functions().iter().any(|f| (f.value as i64..(f.value + f.size) as i64).contains(o));
        let reloc = section.relocs.iter().find(|r| r.0 as i64 == o + 1);
        match reloc {
            Some((_, _, t)) if !in_function => t.plus(4),
            _ => q.clone(),
        }
    }

    /// Table, offset in the function, masked bytes, other targets: of all entries of one function.
    fn entries<'e>(&self, elf: &'e Elf, f: &Sym) -> Vec<Entry<'e>> {
        let mut out = Vec::new();
        for section in &elf.sections {
            let Some(stride) = stride(&section.name, elf) else { continue };
            for start in (0..section.size).step_by(stride as usize) {
                let own: Vec<_> = section.relocs.iter().filter(|r| r.0 >= start && r.0 < start + stride).collect();
                let Some((at, _, Target::Section(s, o))) = own.first() else { continue };
                let delta = o - f.value as i64;
                if *at != start || Some(*s) != f.section || !(0..f.size as i64).contains(&delta) {
                    continue;
                }
                let mut bytes = section.data[start as usize..(start + stride) as usize].to_vec();
                for (place, kind, _) in &own {
                    bytes[(place - start) as usize..][..width(*kind)].fill(0);
                }
                let targets = own[1..].iter().map(|(p, _, t)| (p - start, t.clone())).collect();
                out.push(Entry { table: &section.name, delta, bytes, targets });
            }
        }
        out.sort_by(|a, b| (a.table, a.delta, &a.bytes).cmp(&(b.table, b.delta, &b.bytes)));
        out
    }

    fn same_tables(&self, new: &Elf, source: &Sym, f: &Sym) -> Result<usize, String> {
        let (a, b) = (self.entries(new, source), self.entries(&self.patch, f));
        let list =
            |all: &[Entry<'_>]| all.iter().map(|e| format!("{}+{:#x}", e.table, e.delta)).collect::<Vec<_>>().join(" ");
        if a.len() != b.len() {
            return Err(format!("{}: entries {} became {}", f.name, list(&a), list(&b)));
        }
        let mut compared = 0;
        for (x, y) in a.iter().zip(&b) {
            let place = format!("{}: {} entry at +{:#x}", f.name, x.table, x.delta);
            if (x.table, x.delta, &x.bytes) != (y.table, y.delta, &y.bytes) || x.targets.len() != y.targets.len() {
                return Err(format!("{place}: {:02x?} became {} {:#x} {:02x?}", x.bytes, y.table, y.delta, y.bytes));
            }
            for ((p, s), (q, t)) in x.targets.iter().zip(&y.targets) {
                if p != q {
                    return Err(format!("{place}: the field at {p} became the one at {q}"));
                }
                if x.table == ".altinstructions" && *p == 4 {
                    compared += self
                        .same_replacement(new, s, t, *x.bytes.last().unwrap(), source, f)
                        .map_err(|e| format!("{place}: {e}"))?;
                } else {
                    self.same(new, s, false, t, source, f).map_err(|e| format!("{place}: field {p}: {e}"))?;
                }
                compared += 1;
            }
        }
        Ok(compared)
    }

    fn same_replacement(
        &self,
        new: &Elf,
        s: &Target,
        t: &Target,
        len: u8,
        source: &Sym,
        f: &Sym,
    ) -> Result<usize, String> {
        let (Target::Section(a, ao), Target::Section(b, bo)) = (s, t) else { return Err("no replacement".into()) };
        let x = new.code(*a, *ao as u64, u64::from(len));
        let y = self.patch.code(*b, *bo as u64, u64::from(len));
        if x.len() != y.len() {
            return Err("the replacement differs".into());
        }
        for (i, j) in x.iter().zip(&y) {
            if i.bytes != j.bytes || i.refs.len() != j.refs.len() {
                return Err(format!("the replacement {:02x?} became {:02x?}", i.bytes, j.bytes));
            }
            for (p, q) in i.refs.iter().zip(&j.refs) {
                let within = |t: &Target, s: usize, o: i64| match t {
                    Target::Section(x, at) if *x == s && (o..=o + i64::from(len)).contains(at) => Some(at - o),
                    _ => None,
                };
                match within(&p.target, *a, *ao) {
                    Some(d) if within(&q.target, *b, *bo) == Some(d) => {}
                    Some(d) => {
                        return Err(format!(
                            "a jump inside the replacement to +{d:#x} became {}",
                            self.show(&q.target)
                        ));
                    }
                    None => self.same(new, &p.target, p.branch, &q.target, source, f)?,
                }
            }
        }
        Ok(x.len())
    }

    /// The unwinder's answer at every instruction.
    fn same_unwinding(&self, new: &Elf, source: &Sym, f: &Sym, code: &[Insn]) -> Result<(), String> {
        for insn in code {
            let delta = insn.at - f.value;
            let a = unwind(new, source.section.unwrap(), source.value + delta);
            let b = unwind(&self.patch, self.text(), insn.at);
            if a != b {
                return Err(format!("{}+{delta:#x}: unwind state {a:02x?} became {b:02x?}", f.name));
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Entry<'e> {
    table: &'e str,
    delta: i64,
    bytes: Vec<u8>,
    targets: Vec<(u64, Target)>,
}

/// The string or constant at an offset of a mergeable section.
fn constant(section: &super::read::Sec, offset: i64) -> Result<Vec<u8>, String> {
    let at = offset as usize;
    let unit = section.entsize.max(1) as usize;
    let rest = section.data.get(at..).ok_or("a constant outside its section")?;
    if section.flags & 0x20 == 0 {
        let end = unit - at % unit;
        return Ok(rest[..end].to_vec());
    }
    let len = rest.chunks_exact(unit).position(|c| c.iter().all(|b| *b == 0)).ok_or("a string without end")?;
    Ok(rest[..(len + 1) * unit].to_vec())
}

/// `.orc_unwind` at the last `.orc_unwind_ip` at or before the address.
fn unwind(elf: &Elf, section: usize, offset: u64) -> Option<Vec<u8>> {
    let (_, ip) = elf.section(".orc_unwind_ip")?;
    let (_, orc) = elf.section(".orc_unwind")?;
    let mut best: Option<(i64, u64)> = None;
    for (at, _, target) in &ip.relocs {
        if let Target::Section(s, o) = target
            && *s == section
            && *o <= offset as i64
            && best.is_none_or(|(b, _)| *o >= b)
        {
            best = Some((*o, at / 4));
        }
    }
    let (_, index) = best?;
    Some(orc.data[index as usize * 6..][..6].to_vec())
}
