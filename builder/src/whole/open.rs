//! The file behind a [`Whole`]: mapped, and unpacked where it is a vmlinuz.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::FileHeader;

use super::{Form, Whole, image};
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::kernel::{self, KernelImage, KernelSymbol};
use crate::marks;

/// Bytes a [`Whole`] borrows from.
#[derive(Debug)]
pub struct Backing {
    name: String,
    file: Mapped,
    /// The ELF inside a compressed image.
    unpacked: Option<Vec<u8>>,
    /// Names from kallsyms, when there is no symbol table.
    names: Option<Vec<KernelSymbol>>,
}

/// A file in memory.
#[derive(Debug)]
enum Mapped {
    Map(Mmap),
    Empty,
}

impl Mapped {
    fn bytes(&self) -> &[u8] {
        match self {
            Mapped::Map(m) => m,
            Mapped::Empty => &[],
        }
    }
}

fn map(path: &Path) -> Result<Mapped> {
    let io = |e: std::io::Error| Error::io(path, &e);
    let file = File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(Error::new(codes::LP1007, Place::object(path.display().to_string()), "it is not a regular file"));
    }
    if meta.len() == 0 {
        return Ok(Mapped::Empty);
    }
    // SAFETY: the map is read-only and private. Should another process shorten the file meanwhile, reading it ends this
    // process with SIGBUS, as with any linker or debugger; what it changes is read as it is then.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Mapped::Map(map))
}

/// Is the file a whole kernel: a linked image, a compressed one, or a relocatable file of many source files?
pub fn is_whole(path: &Path) -> bool {
    let Ok(file) = map(path) else { return false };
    let bytes = file.bytes();
    if !bytes.starts_with(b"\x7fELF") {
        return kernel::is_bzimage(bytes);
    }
    /// Composite objects of drivers have up to a few dozen.
    const MANY: usize = 100;
    let files = || -> Option<bool> {
        let header = FileHeader64::<LE>::parse(bytes).ok()?;
        if header.e_type(LE) == elf::ET_EXEC {
            return Some(true);
        }
        let table = header.sections(LE, bytes).ok()?;
        let symbols = table.symbols(LE, bytes, elf::SHT_SYMTAB).ok()?;
        Some(symbols.iter().filter(|s| object::read::elf::Sym::st_type(*s) == elf::STT_FILE).take(MANY).count() == MANY)
    };
    let named = path.file_name().is_some_and(|n| n.to_string_lossy().contains("vmlinux"));
    named || files() == Some(true)
}

impl Backing {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = map(path)?;
        let unpacked = kernel::unpacked(&name, file.bytes())?;
        let mut backing = Self { name, file, unpacked, names: None };
        if !has_symbols(backing.elf()) {
            backing.names = Some(kernel::symbols_of(&backing.name, backing.elf())?);
        }
        Ok(backing)
    }

    /// The ELF file.
    pub fn elf(&self) -> &[u8] {
        self.unpacked.as_deref().unwrap_or(self.file.bytes())
    }

    /// The file as it is.
    pub fn file(&self) -> &[u8] {
        self.file.bytes()
    }

    /// Linked or relocatable.
    pub fn form(&self) -> Form {
        let header = FileHeader64::<LE>::parse(self.elf());
        if header.is_ok_and(|h| h.e_type(LE) == elf::ET_REL) { Form::Relocatable } else { Form::Linked }
    }

    /// As the image patches are bound to.
    pub fn kernel(&self) -> Result<KernelImage> {
        KernelImage::from_bytes(&self.name, self.file())
    }

    /// The kernel in it.
    pub fn whole(&self) -> Result<Whole<'_>> {
        if has_marks(self.elf()) {
            let place = Place::object(&self.name).in_section(marks::SECTION);
            let what = "marks of lpbuild.h are read in objects only; compare the objects in the place of the image";
            return Err(Error::new(codes::LP2028, place, what));
        }
        image::read(&self.name, self.elf(), self.names.as_deref(), self.unpacked.is_some())
    }
}

/// Has the source of a patch gone into it?
fn has_marks(elf_bytes: &[u8]) -> bool {
    let found = || {
        let header = FileHeader64::<LE>::parse(elf_bytes).ok()?;
        let table = header.sections(LE, elf_bytes).ok()?;
        Some(table.section_by_name(LE, marks::SECTION.as_bytes()).is_some())
    };
    found() == Some(true)
}

fn has_symbols(elf_bytes: &[u8]) -> bool {
    let count = || {
        let header = FileHeader64::<LE>::parse(elf_bytes).ok()?;
        let table = header.sections(LE, elf_bytes).ok()?;
        Some(table.symbols(LE, elf_bytes, elf::SHT_SYMTAB).ok()?.len())
    };
    count().is_some_and(|n| n > 1)
}
