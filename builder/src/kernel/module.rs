//! A module's file as an image: linked at addresses of our choice.
//!
//! Input: a `.ko`, perhaps compressed, and where the symbols are that it imports. Output: a [`KernelImage`] whose sections lie at
//! made-up addresses, each on pages of its own with an empty page behind, so that the end of one is never the beginning of the
//! next; relocations are applied as `__write_relocate_add` of arch/x86/kernel/module.c does, and its own symbol table and the
//! imported names take the place of kallsyms. An address says by itself which module it belongs to, since each has another part
//! of the [`ModuleArea`]. What the loader has no room for in memory (`.modinfo`, `__versions`: rewrite_section_headers and
//! layout_sections of kernel/module/main.c) is left out.
//! Refused (LP3009): no module, another release, an imported symbol nobody has, a relocation the loader does not know.

use std::borrow::Cow;
use std::ops::Range;

use object::elf;

use super::kallsyms::{Kallsyms, KernelSymbol};
use super::{KernelImage, KernelSection, elf::find_build_id, payload};
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::ingest::{self, Image, Reloc, Section, SectionId, Symbol, SymbolPlace};
use crate::isa::reloc;

/// Largest module unpacked.
pub(crate) const MAX_MODULE: usize = 512 << 20;
/// Where modules begin: above every kernel image (KERNEL_IMAGE_SIZE of arch/x86/include/asm/page_64_types.h), as in a kernel.
const FIRST: u64 = 0xffff_ffff_c000_0000;
/// Where they end (MODULES_END of arch/x86/include/asm/pgtable_64_types.h).
const LAST: u64 = 0xffff_ffff_ff00_0000;
/// Where per-CPU variables of modules begin: above every offset of the kernel's own, and near enough for a field that counts from
/// the instruction pointer of a module, which wraps around (`%gs:x(%rip)`).
const FIRST_PERCPU: u64 = 0x1000_0000;
/// Where they end.
const LAST_PERCPU: u64 = 0x3000_0000;
const PAGE: u64 = 0x1000;
/// The section of per-CPU variables, which has a copy for each CPU in memory (find_pcpusec of kernel/module/main.c).
const PERCPU: &str = ".data..percpu";

/// The addresses that modules get, one behind the other.
#[derive(Debug)]
pub struct ModuleArea {
    next: u64,
    percpu: u64,
}

impl Default for ModuleArea {
    fn default() -> Self {
        Self { next: FIRST, percpu: FIRST_PERCPU }
    }
}

impl ModuleArea {
    /// Pages for a section, and an empty one behind.
    fn take(&mut self, section: &Section) -> Option<u64> {
        let percpu = section.name == PERCPU;
        let (next, last) = if percpu { (&mut self.percpu, LAST_PERCPU) } else { (&mut self.next, LAST) };
        let at = next.checked_next_multiple_of(section.align.max(PAGE))?;
        let end = at.checked_add(section.size.checked_next_multiple_of(PAGE)?)?.checked_add(PAGE)?;
        *next = end;
        (end <= last).then_some(at)
    }
}

/// What is known of a module beside code, data and names.
#[derive(Clone, Debug, Default)]
pub struct ModuleFacts {
    /// Its name, as `/sys/module` has it.
    pub name: String,
    /// Memory that is freed when its init function has returned.
    pub init: Vec<Range<u64>>,
    /// All of its memory, section by section.
    pub ranges: Vec<Range<u64>>,
    /// Does its symbol table still have the names of what is local to one of its objects?
    pub has_locals: bool,
    /// SHA-256 of its file, unpacked; lower-case hex.
    pub sha256: String,
    /// Names and addresses of what stays when its init is over, in the order of its symbol table: that of the loader's as well
    /// (`add_kallsyms` of kernel/module/kallsyms.c).
    pub symbols: Vec<(Box<str>, u64)>,
    /// Its relocated fields, in the order of their places.
    pub fields: Vec<ModuleField>,
}

/// A field that the loader fills in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleField {
    /// Where it is.
    pub at: u64,
    /// `R_X86_64_*`
    pub kind: u32,
    /// The symbol it counts from: whatever the addend is, it is that symbol's section which is meant.
    pub symbol: u64,
}

impl ModuleFacts {
    /// The fields that begin in a range.
    pub fn fields_in(&self, range: Range<u64>) -> &[ModuleField] {
        let from = self.fields.partition_point(|f| f.at < range.start);
        let to = self.fields.partition_point(|f| f.at < range.end);
        self.fields.get(from..to).unwrap_or(&[])
    }
}

/// Is an address one that modules get, whether the module there is known or not?
pub fn is_in_area(address: u64) -> bool {
    (FIRST..LAST).contains(&address) || (FIRST_PERCPU..LAST_PERCPU).contains(&address)
}

/// Where an imported symbol is, and the letter that stands for its kind.
pub type Imported = (u64, u8);

/// A module with a place for each section; its fields are not filled in yet.
#[derive(Debug)]
pub struct LaidOut {
    image: Image,
    places: Vec<Option<u64>>,
    name: String,
    release: String,
    sha256: String,
}

/// Gives each section of a module its address. `file` is for messages.
///
/// # Errors
/// LP3009, and LP1002 and LP1003 for what is no object file.
pub fn lay_out(file: &str, data: &[u8], area: &mut ModuleArea) -> Result<LaidOut> {
    let odd = |what: String| Error::new(codes::LP3009, Place::object(file), what);
    let data: Cow<'_, [u8]> = payload::unpack_file(data, MAX_MODULE).map_err(|e| odd(e.to_string()))?;
    let image = ingest::read(file, &data)?;
    let info = |key: &str| modinfo(&image, key);
    let name = info("name").ok_or_else(|| odd("its .modinfo has no name".into()))?;
    let release = info("vermagic").and_then(|v| v.split(' ').next().map(str::to_owned)).unwrap_or_default();
    let mut places = Vec::with_capacity(image.sections.len());
    for section in &image.sections {
        let place = match is_in_memory(section) {
            true => Some(area.take(section).ok_or_else(|| odd("there is no room for all modules".into()))?),
            false => None,
        };
        places.push(place);
    }
    let sha256 = crate::hash::digest(&data);
    Ok(LaidOut { image, places, name, release, sha256 })
}

/// Has the section bytes in memory while the module is loaded?
fn is_in_memory(section: &Section) -> bool {
    section.is_alloc() && ![".modinfo", "__versions"].contains(&section.name.as_str())
}

/// Is a section freed when the init function has returned (module_init_section of kernel/module/main.c)?
fn is_init(section: &str) -> bool {
    section.starts_with(".init")
}

/// The first value of a key in `.modinfo`: texts `key=value`, each with a zero behind.
pub(crate) fn modinfo(image: &Image, key: &str) -> Option<String> {
    let section = image.sections.iter().find(|s| s.name == ".modinfo")?;
    let mut texts = section.data.split(|b| *b == 0).filter_map(|t| std::str::from_utf8(t).ok());
    texts.find_map(|t| Some(t.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
}

impl LaidOut {
    /// The name of the module.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel it was built for, as its `vermagic` says.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Names that it imports and cannot do without.
    pub fn imports(&self) -> impl Iterator<Item = &str> {
        self.undefined().filter(|s| s.bind != elf::STB_WEAK.0).map(|s| s.name.as_str())
    }

    /// Where the global symbol of this name is.
    pub fn exported(&self, name: &str) -> Option<Imported> {
        let mut named = self.image.symbols.iter().filter(|s| s.name == name && s.bind != elf::STB_LOCAL.0);
        named.find_map(|s| Some((self.address(s)?, self.letter(s))))
    }

    fn undefined(&self) -> impl Iterator<Item = &Symbol> {
        self.image.symbols.iter().filter(|s| s.place == SymbolPlace::Undefined && !s.name.is_empty())
    }

    fn section(&self, id: SectionId) -> Option<&Section> {
        self.image.sections.get(id.0 as usize)
    }

    fn place(&self, id: SectionId) -> Option<u64> {
        self.places.get(id.0 as usize).copied().flatten()
    }

    /// Of a symbol that lies in memory.
    fn address(&self, symbol: &Symbol) -> Option<u64> {
        let SymbolPlace::Section(id) = symbol.place else { return None };
        Some(self.place(id)?.wrapping_add(symbol.value))
    }

    /// As `nm` prints it.
    fn letter(&self, symbol: &Symbol) -> u8 {
        let SymbolPlace::Section(id) = symbol.place else { return b'U' };
        let Some(section) = self.section(id) else { return b'U' };
        let letter = match () {
            () if symbol.bind == elf::STB_WEAK.0 => return if section.is_exec() { b'W' } else { b'V' },
            () if section.is_exec() => b'T',
            () if section.kind == elf::SHT_NOBITS.0 => b'B',
            () if section.is_write() => b'D',
            () => b'R',
        };
        if symbol.bind == elf::STB_LOCAL.0 { letter.to_ascii_lowercase() } else { letter }
    }

    /// Fills in its fields. `resolve` knows where imported symbols are.
    ///
    /// # Errors
    /// LP3009.
    pub fn link(&self, resolve: &dyn Fn(&str) -> Option<Imported>) -> Result<KernelImage> {
        let file = self.image.name.as_str();
        let mut kallsyms = Vec::new();
        for symbol in &self.image.symbols {
            let marks = [elf::STT_SECTION.0, elf::STT_FILE.0].contains(&symbol.kind);
            let Some(addr) = self.address(symbol).filter(|_| !marks && !symbol.name.is_empty()) else { continue };
            kallsyms.push(KernelSymbol {
                addr,
                kind: self.letter(symbol),
                name: symbol.name.as_str().into(),
                listed: true,
            });
        }
        for symbol in self.undefined() {
            if let Some((addr, kind)) = resolve(&symbol.name) {
                let kind = kind.to_ascii_uppercase();
                kallsyms.push(KernelSymbol { addr, kind, name: symbol.name.as_str().into(), listed: false });
            }
        }
        let mut sections = Vec::new();
        let (name, sha256) = (self.name.clone(), self.sha256.clone());
        let mut facts = ModuleFacts { name, sha256, has_locals: self.has_locals(), ..ModuleFacts::default() };
        for (section, place) in self.image.sections.iter().zip(&self.places) {
            let Some(addr) = *place else { continue };
            let mut data = section.data.clone();
            for r in &section.relocs {
                self.apply(r, addr, &mut data, resolve).map_err(|what| {
                    let place = Place::object(file).in_section(&section.name);
                    Error::new(codes::LP3009, place.at(r.offset), what)
                })?;
                let symbol = self.symbol(r, resolve).unwrap_or_default();
                facts.fields.push(ModuleField { at: addr.saturating_add(r.offset), kind: r.kind, symbol });
            }
            let range = addr..addr.saturating_add(section.size);
            if is_init(&section.name) {
                facts.init.push(range.clone());
            }
            facts.ranges.push(range);
            let notes = section.kind == elf::SHT_NOTE.0;
            let (name, size, flags) = (section.name.clone(), section.size, section.flags);
            sections.push(KernelSection { name, addr, size, data, flags, notes });
        }
        facts.fields.sort_by_key(|f| f.at);
        let stays = |s: &&Symbol| match s.place {
            SymbolPlace::Section(id) => self.section(id).is_some_and(|s| !is_init(&s.name)) && !s.name.is_empty(),
            _ => false,
        };
        let core = self.image.symbols.iter().filter(stays);
        facts.symbols = core.filter_map(|s| Some((s.name.as_str().into(), self.address(s)?))).collect();
        let build_id = sections.iter().filter(|s| s.notes).find_map(|s| find_build_id(&s.data));
        let build_id = build_id.ok_or_else(|| {
            let what = "it has no build id, so that another build of it could not be told from it";
            Error::new(codes::LP3009, Place::object(file), what)
        })?;
        Ok(KernelImage {
            name: file.to_owned(),
            build_id,
            release: self.release.clone(),
            banner: String::new(),
            sections,
            kallsyms: Kallsyms::new(kallsyms),
            module: Some(facts),
            derived: super::derived::Derived::default(),
        })
    }

    /// `strip --strip-debug` (INSTALL_MOD_STRIP=1) leaves names of local functions, `--strip-unneeded` does not.
    fn has_locals(&self) -> bool {
        let code =
            |s: &Symbol| matches!(s.place, SymbolPlace::Section(id) if self.section(id).is_some_and(Section::is_exec));
        self.image.symbols.iter().any(|s| s.bind == elf::STB_LOCAL.0 && s.kind == elf::STT_FUNC.0 && code(s))
    }

    /// Where the symbol of a relocation is.
    fn symbol(&self, r: &Reloc, resolve: &dyn Fn(&str) -> Option<Imported>) -> std::result::Result<u64, String> {
        let symbol = self.image.symbols.get(r.symbol.0 as usize).ok_or("a relocation of no symbol")?;
        match symbol.place {
            SymbolPlace::Absolute => Ok(symbol.value),
            SymbolPlace::Common => Err(format!("{} is a tentative definition", symbol.name)),
            SymbolPlace::Section(id) => self.address(symbol).ok_or_else(|| {
                let of = self.section(id).map_or("", |s| s.name.as_str());
                format!("it refers to {of}, which is not in memory")
            }),
            SymbolPlace::Undefined => match resolve(&symbol.name) {
                Some((address, _)) => Ok(address),
                None if symbol.bind == elf::STB_WEAK.0 => Ok(0),
                None => Err(format!("it imports {}, which neither the kernel nor a module has", symbol.name)),
            },
        }
    }

    fn apply(
        &self,
        r: &Reloc,
        base: u64,
        data: &mut [u8],
        resolve: &dyn Fn(&str) -> Option<Imported>,
    ) -> std::result::Result<(), String> {
        let unknown = || format!("relocation type {} is none the module loader knows", r.kind);
        let width = reloc::width(r.kind).ok_or_else(unknown)?;
        if width == 0 {
            return Ok(());
        }
        let mut value = self.symbol(r, resolve)?.wrapping_add_signed(r.addend);
        if reloc::is_pc_relative(r.kind) {
            value = value.wrapping_sub(base.wrapping_add(r.offset));
        }
        let fits = match r.kind {
            reloc::ABS32 => u32::try_from(value).is_ok(),
            reloc::ABS32S => i32::try_from(value as i64).is_ok(),
            // A weak symbol that nobody has is out of reach, and not used then (`#if 0` in __write_relocate_add).
            _ => true,
        };
        if !fits {
            let symbol = self.image.symbols.get(r.symbol.0 as usize).map_or("", |s| s.name.as_str());
            return Err(format!("{symbol} does not fit its field"));
        }
        let at = usize::try_from(r.offset).map_err(|e| e.to_string())?;
        let end = at.checked_add(width as usize);
        let field = end.and_then(|end| data.get_mut(at..end)).ok_or("a field behind the end of its section")?;
        let bytes = value.to_le_bytes();
        field.copy_from_slice(bytes.get(..field.len()).unwrap_or_default());
        Ok(())
    }
}
