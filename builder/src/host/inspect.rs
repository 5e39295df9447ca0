//! `lpbuild inspect`: what a module would do, without doing it and on any host.
//!
//! Input: a module. Output: [`InspectReport`]. Refused: what [`ModuleFile`] refuses.

use std::io::Write;
use std::path::Path;

use crate::isa::{Decoder, DecoderOptions, Formatter, GasFormatter};
use serde::Serialize;

use super::Shown;
use super::module::{ModuleFile, Signature};
use crate::error::Result;
use crate::plan::manifest::{Callbacks, Constant, Function, Jump, KeptAddress, Kernel, Manifest, Mode};

/// A module.
#[derive(Clone, Debug, Serialize)]
pub struct InspectReport {
    /// File.
    pub module: String,
    /// Bytes of the file.
    pub size: u64,
    /// Name of the patch.
    pub name: String,
    /// Version of the patch.
    pub version: String,
    /// What it is for; may be empty.
    pub description: String,
    /// Quiesce mode.
    pub mode: Mode,
    /// Deadline in milliseconds.
    pub deadline_ms: u32,
    /// Milliseconds before a transition disturbs tasks in user space.
    pub patience_ms: u32,
    /// It is never reverted.
    pub oneshot: bool,
    /// Patches it may lie on top of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Patches it takes the place of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
    /// Functions of the patch that the runtime calls.
    pub callbacks: Callbacks,
    /// The kernel it fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<InspectedKernel>,
    /// Kernel modules that some of the functions are in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<InspectedHolder>,
    /// Replaced functions.
    pub functions: Vec<InspectedFunction>,
    /// Constants that change in their place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Constant>,
    /// Number of functions and data objects the patch brings along.
    pub carried: usize,
    /// Number of symbols outside the patch that it refers to.
    pub symbols: usize,
    /// Addresses of the patch that the kernel keeps and the author takes back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub promises: Vec<KeptAddress>,
    /// `.modinfo`, in its order.
    pub modinfo: Vec<(String, String)>,
    /// The appended signature, not verified.
    pub signature: Option<Signature>,
}

/// A kernel module that has functions of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedHolder {
    /// Its name.
    pub name: String,
    /// GNU build id, lower-case hex.
    pub build_id: String,
}

/// The kernel a patch fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedKernel {
    /// As `uname -r` prints it.
    pub release: String,
    /// GNU build id, lower-case hex.
    pub build_id: String,
}

/// A replaced function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedFunction {
    /// `vmlinux`, or the name of a module.
    pub object: String,
    /// Path of the compared object file.
    pub source: String,
    /// Symbol in the old build.
    pub symbol: String,
    /// Bytes of the old function.
    pub old_size: u32,
    /// Bytes of the new function.
    pub new_size: u32,
    /// Why it is in the patch.
    pub why: String,
    /// The jump site.
    pub site: InspectedSite,
    /// Names of the other pieces of the old function.
    pub pieces: Vec<String>,
}

/// A jump site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedSite {
    /// Distance from the start of the function.
    pub offset: u64,
    /// Bytes covered.
    pub size: u64,
    /// Form of the jump.
    pub jump: Jump,
    /// The rule that chose it.
    pub rule: String,
    /// Link-time address, when the patch is bound; in JSON a hex string, since numbers of JSON hold 53 bits in many readers.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "hex")]
    pub address: Option<u64>,
    /// The covered instructions, decoded from the bytes.
    pub original: Vec<Instruction>,
    /// What is written over them.
    pub written: String,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instruction {
    /// Distance from the start of the function.
    pub offset: u64,
    /// Lower-case hex.
    pub bytes: String,
    /// AT&T syntax.
    pub text: String,
}

#[expect(clippy::ref_option, reason = "the signature serde asks for")]
fn hex<S: serde::Serializer>(address: &Option<u64>, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_str(&format_args!("{:#x}", address.unwrap_or_default()))
}

/// Reads the module at `path`.
pub fn inspect(path: &Path) -> Result<InspectReport> {
    let module = ModuleFile::open(path)?;
    let Manifest { patch, callbacks, kernel, holders, functions, data, carried, symbols, promises, .. } =
        module.manifest;
    let functions = functions.into_iter().map(|f| function(f, kernel.as_ref())).collect();
    Ok(InspectReport {
        module: module.path,
        size: module.size,
        name: patch.name,
        version: patch.version,
        description: patch.description,
        mode: patch.mode,
        deadline_ms: patch.deadline_ms,
        patience_ms: patch.patience_ms,
        oneshot: patch.oneshot,
        after: patch.after,
        replaces: patch.replaces,
        callbacks,
        holders: holders.into_iter().map(|h| InspectedHolder { name: h.name, build_id: h.build_id }).collect(),
        kernel: kernel.map(|k| InspectedKernel { release: k.release, build_id: k.build_id }),
        functions,
        data,
        carried: carried.len(),
        symbols: symbols.len(),
        promises,
        modinfo: module.modinfo,
        signature: module.signature,
    })
}

fn function(f: Function, kernel: Option<&Kernel>) -> InspectedFunction {
    let offset = u64::from(f.site.offset);
    let start = kernel.and_then(|k| k.anchor_address.checked_add_signed(f.anchor_offset?));
    let rest = usize::from(f.site.size).saturating_sub(f.site.jump.len());
    let jump = match f.site.jump {
        Jump::Rel32 => format!("jmp <new {}>", f.symbol),
        Jump::Abs64 => format!("movabs $<new {}>,%rax; jmp *%rax", f.symbol),
    };
    let site = InspectedSite {
        offset,
        size: u64::from(f.site.size),
        jump: f.site.jump,
        address: start.map(|s| s.wrapping_add(offset)),
        original: decode(&f.site.original_bytes().unwrap_or_default(), start.unwrap_or(0), offset),
        written: if rest == 0 { jump } else { format!("{jump}; nop of {rest} bytes") },
        rule: f.site.rule,
    };
    InspectedFunction {
        object: f.object,
        source: f.source,
        symbol: f.symbol,
        old_size: f.old_size,
        new_size: f.new_size,
        why: f.why,
        site,
        pieces: f.pieces.into_iter().map(|p| p.symbol).collect(),
    }
}

fn decode(bytes: &[u8], start: u64, site: u64) -> Vec<Instruction> {
    let mut decoder = Decoder::with_ip(64, bytes, start.wrapping_add(site), DecoderOptions::NONE);
    let mut formatter = GasFormatter::new();
    let mut out = Vec::new();
    while decoder.can_decode() {
        let at = decoder.position();
        let instruction = decoder.decode();
        let bytes = bytes.get(at..decoder.position()).unwrap_or_default();
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        out.push(Instruction {
            offset: site.saturating_add(at as u64),
            bytes: bytes.iter().map(|b| format!("{b:02x} ")).collect::<String>().trim_end().to_owned(),
            text,
        });
    }
    out
}

impl Shown for InspectReport {
    fn text(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "patch      {} {}", self.name, self.version)?;
        if !self.description.is_empty() {
            writeln!(out, "           {}", self.description)?;
        }
        writeln!(out, "module     {} ({} bytes)", self.module, self.size)?;
        let mode = self.mode.name();
        let oneshot = if self.oneshot { ", oneshot" } else { "" };
        let patience = match self.mode {
            Mode::Transition => format!(", patience {} ms", self.patience_ms),
            Mode::StopMachine | Mode::Drain => String::new(),
        };
        writeln!(out, "mode       {mode}, deadline {} ms{patience}{oneshot}", self.deadline_ms)?;
        for (what, names) in [("after", &self.after), ("replaces", &self.replaces)] {
            if !names.is_empty() {
                writeln!(out, "{what:<10} {}", names.join(", "))?;
            }
        }
        for (callback, function) in self.callbacks.all() {
            writeln!(out, "calls      {function} ({})", callback.name())?;
        }
        match &self.kernel {
            Some(k) => writeln!(out, "kernel     {} build id {}", k.release, k.build_id)?,
            None => writeln!(out, "kernel     not bound to one")?,
        }
        for h in &self.holders {
            writeln!(out, "target     {} build id {}, a kernel module", h.name, h.build_id)?;
        }
        match &self.signature {
            Some(s) => writeln!(out, "signature  {}, {} bytes (not verified)", s.kind, s.size)?,
            None => writeln!(out, "signature  none")?,
        }
        writeln!(out, "carries    {} functions and data, refers to {} symbols", self.carried, self.symbols)?;
        for p in &self.promises {
            writeln!(out, "promise    {}: {} {}", p.source, p.function, p.what)?;
        }
        for d in &self.data {
            writeln!(out, "data       {}: {}, {} bytes, changes in its place", d.source, d.symbol, d.size)?;
            d.changes.iter().try_for_each(|c| writeln!(out, "           {c}"))?;
        }
        for f in &self.functions {
            let site = &f.site;
            writeln!(out, "\n{}: {} ({}), {} -> {} bytes", f.object, f.symbol, f.source, f.old_size, f.new_size)?;
            writeln!(out, "  because  {}", f.why)?;
            let address = site.address.map(|a| format!(" at {a:#x}")).unwrap_or_default();
            writeln!(out, "  site     +{:#x}/{}{address}, {}", site.offset, site.size, site.rule)?;
            let width = site.original.iter().map(|i| i.bytes.len()).max().unwrap_or(0);
            for i in &site.original {
                writeln!(out, "    +{:#04x}  {:width$}  {}", i.offset, i.bytes, i.text)?;
            }
            writeln!(out, "  becomes  {}", site.written)?;
            for p in &f.pieces {
                writeln!(out, "  piece    {p}")?;
            }
        }
        writeln!(out, "\nmodinfo")?;
        for (key, value) in &self.modinfo {
            writeln!(out, "  {key}={value}")?;
        }
        Ok(())
    }
}
