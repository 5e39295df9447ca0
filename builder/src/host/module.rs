//! A finished module: the `.ko` that `lpbuild pack` makes.
//!
//! Input: the file. Output: [`ModuleFile`]: manifest, modinfo, signature. Refused: anything but a relocatable x86-64 ELF
//! (LP5102), modules that lpbuild did not make (LP5101), and names that contradict each other (LP5118).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use lpbuild_abi::{ABI_VERSION, SEC_MANIFEST, SEC_WHY};
use object::LittleEndian;
use object::elf::{ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_REL, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader};
use serde::Serialize;

use crate::backend::detour::record_contradictions;
use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::explain::{Explanation, stored};
use crate::plan::manifest::Manifest;

const LE: LittleEndian = LittleEndian;
/// Largest module read; the largest of a distribution have 10 MB, with DWARF 200 MB.
const MAX_FILE: u64 = 1 << 30;
/// Last bytes of a signed module (include/linux/module_signature.h).
const SIGNATURE_MAGIC: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature` in front of the magic.
const SIGNATURE_INFO: usize = 12;

/// A module, read and checked.
#[derive(Debug)]
pub struct ModuleFile {
    /// As given, for messages.
    pub path: String,
    /// What lpbuild wrote into it.
    pub manifest: Manifest,
    /// What explains the patch, unchecked; none in a module that was packed without.
    pub why: Option<Vec<u8>>,
    /// `key=value` entries of `.modinfo`, in their order.
    pub modinfo: Vec<(String, String)>,
    /// In what its records contradict the manifest.
    pub contradictions: Vec<Problem>,
    /// The appended signature, not verified.
    pub signature: Option<Signature>,
    /// Bytes of the file.
    pub size: u64,
    /// The open file, for finit_module: what was checked is what is loaded.
    pub(super) file: File,
}

/// An appended signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// `PKCS#7`, or the number of another kind.
    pub kind: String,
    /// Bytes of the signature.
    pub size: u32,
}

impl ModuleFile {
    /// Can it be read again?
    pub(super) fn is_regular(&self) -> bool {
        self.file.metadata().is_ok_and(|m| m.is_file())
    }

    /// Reads the module at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(path).map(|(module, _)| module)
    }

    /// The same, with the bytes of the file: what may be a pipe is read once.
    pub fn read(path: &Path) -> Result<(Self, Vec<u8>)> {
        let name = path.display().to_string();
        let io = |e: std::io::Error| Error::io(path, &e);
        let file = File::open(path).map_err(io)?;
        let mut data = Vec::new();
        (&file).take(MAX_FILE.saturating_add(1)).read_to_end(&mut data).map_err(io)?;
        if data.len() as u64 > MAX_FILE {
            return Err(Error::new(codes::LP5102, Place::object(&name), "the file is larger than any module"));
        }
        let contents = parse(&name, &data)?;
        let module = Self {
            manifest: contents.manifest,
            why: contents.why,
            modinfo: contents.modinfo,
            contradictions: contents.contradictions,
            signature: signature(&data),
            size: data.len() as u64,
            path: name,
            file,
        };
        Ok((module, data))
    }

    /// What it tells of its patch.
    ///
    /// # Errors
    /// LP1112.
    pub fn explanation(&self) -> Result<Explanation> {
        let from = format!("{}: {SEC_WHY}", self.path);
        let record = self.why.as_ref().map(|w| stored::parse(w, &self.manifest, &from)).transpose()?;
        Ok(Explanation::of(self.manifest.clone(), record))
    }

    /// The value of a modinfo field.
    pub fn modinfo(&self, key: &str) -> Option<&str> {
        self.modinfo.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The first word of vermagic: the release of the kernel the module was compiled for.
    pub fn vermagic_release(&self) -> Option<&str> {
        self.modinfo("vermagic")?.split_whitespace().next()
    }

    pub(super) fn place(&self) -> Place {
        Place::object(&self.path)
    }
}

struct Contents {
    manifest: Manifest,
    why: Option<Vec<u8>>,
    modinfo: Vec<(String, String)>,
    contradictions: Vec<Problem>,
}

fn parse(name: &str, data: &[u8]) -> Result<Contents> {
    let other = |detail: &str| Error::new(codes::LP5102, Place::object(name), detail);
    if !data.starts_with(b"\x7fELF") {
        return Err(other(match data {
            [0x1f, 0x8b, ..] | [0xfd, b'7', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => "the module is compressed",
            _ => "not an ELF file",
        }));
    }
    if data.get(4) != Some(&ELFCLASS64.0) || data.get(5) != Some(&ELFDATA2LSB.0) {
        return Err(other("not 64-bit little endian"));
    }
    let damaged = |e: object::read::Error| Error::new(codes::LP1003, Place::object(name), e.to_string());
    let header = FileHeader64::<LittleEndian>::parse(data).map_err(damaged)?;
    if header.e_machine(LE) != EM_X86_64 || header.e_type(LE) != ET_REL {
        return Err(other("not a relocatable file for x86-64"));
    }
    let sections = header.sections(LE, data).map_err(damaged)?;
    let bytes = |wanted: &str| -> Result<Option<&[u8]>> {
        let found = sections.section_by_name(LE, wanted.as_bytes());
        found.map(|(_, s)| s.data(LE, data).map_err(damaged)).transpose()
    };
    let Some(manifest) = bytes(SEC_MANIFEST)? else {
        let place = Place::object(name).in_section(SEC_MANIFEST);
        return Err(Error::new(codes::LP5101, place, "the module has no such section"));
    };
    // The section may be padded to its alignment.
    let manifest = manifest.split(|&c| c == 0).next().unwrap_or_default();
    let manifest = std::str::from_utf8(manifest)
        .map_err(|e| Error::new(codes::LP1101, Place::object(name).in_section(SEC_MANIFEST), e.to_string()))?;
    let text = manifest;
    let manifest = Manifest::parse(text, name)?;
    let modinfo: Vec<(String, String)> = bytes(".modinfo")?
        .unwrap_or_default()
        .split(|&c| c == 0)
        .filter_map(|entry| String::from_utf8_lossy(entry).split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect();
    let own = modinfo.iter().find(|(k, _)| k == "name").map(|(_, v)| v.as_str());
    if own.is_some_and(|own| own != manifest.patch.name) {
        let detail = format!("modinfo calls it {}, its manifest {}", own.unwrap_or_default(), manifest.patch.name);
        return Err(Error::new(codes::LP5118, Place::object(name), detail));
    }
    // The records of another layout are for the runtime beside them.
    let ours = modinfo.iter().any(|(k, v)| k == "lpbuild_abi" && *v == ABI_VERSION.to_string());
    let contradictions = if ours { record_contradictions(name, data, text, &manifest) } else { Vec::new() };
    // As the manifest, it may be padded.
    let why = bytes(SEC_WHY)?.map(|w| w.split(|&c| c == 0).next().unwrap_or_default().to_owned());
    Ok(Contents { manifest, why, modinfo, contradictions })
}

fn signature(data: &[u8]) -> Option<Signature> {
    const PKCS7: u8 = 2;
    let info = data.strip_suffix(SIGNATURE_MAGIC)?.last_chunk::<SIGNATURE_INFO>()?;
    let [_, _, kind, _, _, _, _, _, size @ ..] = *info;
    let kind = if kind == PKCS7 { "PKCS#7".to_owned() } else { format!("kind {kind}") };
    Some(Signature { kind, size: u32::from_be_bytes(size) })
}
