//! `manifest.toml`: what a patch does to one kernel, in a stable order. Schema and meaning: docs/manifest.md.

pub use super::holders::{HolderEntry, HolderSection, SectionField, SectionSymbol};
use crate::hash::from_hex;
use lpbuild_abi as abi;
pub use lpbuild_abi::Callback;
use serde::{Deserialize, Serialize};

use crate::accept::{Accepted, is_name};
use crate::codes;
use crate::error::{Error, Place, Result};

/// The greatest value of [`Manifest::schema`]: of a patch that changes constants in their place, has shadow variables, or of which parts
/// were left out.
pub const SCHEMA: u32 = 4;
/// That of a patch without, and with functions of kernel modules.
pub const SCHEMA_OF_MODULES: u32 = 3;
/// That of a patch without either.
pub const SCHEMA_OF_KERNEL: u32 = 2;
/// The oldest one that is read. It has no hash of patch.o: such modules load, such folders are not packed.
pub const OLDEST_SCHEMA: u32 = 1;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// Version of this schema.
    pub schema: u32,
    /// Name, version and mode of the patch.
    pub patch: Patch,
    /// Functions of the patch that the runtime calls.
    #[serde(default, skip_serializing_if = "Callbacks::is_empty")]
    pub callbacks: Callbacks,
    /// The kernel it is bound to; absent while the patch is symbolic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// Kernel modules that it has functions of, by name.
    #[serde(default, rename = "holder", skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<HolderEntry>,
    /// Replaced functions, the kernel's first, by object and symbol.
    #[serde(default, rename = "function")]
    pub functions: Vec<Function>,
    /// Constants of the kernel that change in their place, by object and symbol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Constant>,
    /// What of the source patches was left out, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Functions and data the patch adds, by object and symbol.
    #[serde(default, rename = "carried", skip_serializing_if = "Vec::is_empty")]
    pub carried: Vec<Carried>,
    /// Shadow variables that the patch has, by name.
    #[serde(default, rename = "shadow", skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<ShadowVariable>,
    /// Symbols outside the patch that it refers to, and how each was resolved.
    #[serde(default, rename = "symbol", skip_serializing_if = "Vec::is_empty")]
    pub symbols: Vec<BoundSymbol>,
    /// Kernel-internal symbols the runtime is bound to.
    #[serde(default, rename = "import", skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<BoundImport>,
    /// The compared objects.
    #[serde(default, rename = "input", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// Refusals that the author answers for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
    /// Addresses of the patch that the kernel keeps.
    #[serde(default, rename = "promise", skip_serializing_if = "Vec::is_empty")]
    pub promises: Vec<KeptAddress>,
}

/// A shadow variable that the patch has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ShadowVariable {
    /// A C identifier.
    pub name: String,
    /// Size of a value in bytes.
    pub size: u32,
}

/// Name, version and mode of the patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Patch {
    /// Also the name of the module: `[a-z0-9_]`, at most 48 bytes, begins with a letter.
    pub name: String,
    /// 1 to 32 characters, see [`is_plain`].
    pub version: String,
    /// What it is for: one line, see [`is_line`]; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When the switch is made.
    pub mode: Mode,
    /// Milliseconds after which an apply or revert that finds the functions busy gives up.
    pub deadline_ms: u32,
    /// Milliseconds before a transition disturbs tasks in user space.
    #[serde(default = "patience", skip_serializing_if = "is_patience")]
    pub patience_ms: u32,
    /// SHA-256 of patch.o, lower-case hex; absent in schema 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_sha256: Option<String>,
    /// It is never reverted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oneshot: bool,
    /// Names of patches it may lie on top of, and must be loaded behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Names of patches it takes the place of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
}

/// Functions the patch adds and the runtime calls; C identifiers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Callbacks {
    /// Before anything is written; may refuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_apply: Option<String>,
    /// When the new code is in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_apply: Option<String>,
    /// Before reverting begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_revert: Option<String>,
    /// When the new code is out of effect, before the module may go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_revert: Option<String>,
}

impl Callbacks {
    /// The function for each callback there is, in the order of a patch's life.
    pub fn all(&self) -> impl Iterator<Item = (Callback, &str)> {
        Callback::ALL.into_iter().filter_map(|c| Some((c, self.get(c)?)))
    }
    /// The function of one callback.
    pub fn get(&self, callback: Callback) -> Option<&str> {
        match callback {
            Callback::PreApply => self.pre_apply.as_deref(),
            Callback::PostApply => self.post_apply.as_deref(),
            Callback::PreRevert => self.pre_revert.as_deref(),
            Callback::PostRevert => self.post_revert.as_deref(),
        }
    }
    /// Sets the function of one callback.
    pub fn set(&mut self, callback: Callback, function: String) {
        let slot = match callback {
            Callback::PreApply => &mut self.pre_apply,
            Callback::PostApply => &mut self.post_apply,
            Callback::PreRevert => &mut self.pre_revert,
            Callback::PostRevert => &mut self.post_revert,
        };
        *slot = Some(function);
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

/// Quiesce mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// All functions at one instant inside `stop_machine`.
    StopMachine,
    /// Every new call at once; then the tasks that are still in old code are waited for.
    Drain,
    /// Task by task.
    Transition,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 3] = [Mode::StopMachine, Mode::Drain, Mode::Transition];

    /// As livepatch.toml, the manifest and `--mode` name it.
    pub fn name(self) -> &'static str {
        self.to_abi().name()
    }
    /// The mode of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }
    /// The same in the module's records.
    pub fn to_abi(self) -> abi::Mode {
        match self {
            Mode::StopMachine => abi::Mode::StopMachine,
            Mode::Drain => abi::Mode::Drain,
            Mode::Transition => abi::Mode::Transition,
        }
    }
}

/// The kernel a patch is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub release: String,
    /// GNU build id, lower-case hex.
    pub build_id: String,
    /// Exported symbol all addresses are relative to.
    pub anchor: String,
    /// Link-time address of the anchor, hex.
    #[serde(with = "hex_u64")]
    pub anchor_address: u64,
}

/// One replaced function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Function {
    /// `vmlinux`, or the name of a holder; the object file it was compiled into is `source`.
    pub object: String,
    /// Path of the compared object file, relative to the tree.
    pub source: String,
    /// Symbol in the old build.
    pub symbol: String,
    /// Position among the symbols of this name in address order, from 1; 0: the name is unique. Absent while symbolic, and in a
    /// module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sympos: Option<u32>,
    /// Address minus the anchor's address, in bytes. Absent while symbolic, and in a module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor_offset: Option<i64>,
    /// Section of the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// Distance from the beginning of that section, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_offset: Option<u64>,
    /// Size of the old function in bytes.
    pub old_size: u32,
    /// Size of the new function in bytes.
    pub new_size: u32,
    /// Why it is in the patch.
    pub why: String,
    /// The jump site.
    pub site: Site,
    /// Other pieces of the old function (`.cold`, `.part`) no task may be inside.
    #[serde(default, rename = "piece", skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<Piece>,
}

/// A piece of old code outside the function's own range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Piece {
    /// Symbol in the old build.
    pub symbol: String,
    /// Address minus the anchor's address, in bytes. Absent while symbolic, and in a module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor_offset: Option<i64>,
    /// Section of the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// Distance from the beginning of that section, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_offset: Option<u64>,
    /// Length in bytes.
    pub size: u32,
}

/// Where and how the jump is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Site {
    /// Distance from the start of the old function, in bytes.
    pub offset: u16,
    /// Bytes covered: whole instructions.
    pub size: u8,
    /// Form of the jump.
    pub jump: Jump,
    /// The covered bytes before the patch, lower-case hex; relocated fields are filled in once the patch is bound.
    pub original: String,
    /// The covered instructions, AT&T syntax.
    pub instructions: Vec<String>,
    /// The rule that chose the site: `after-fentry`, `entry` (no fentry nop) or `over-fentry` (ftrace unusable).
    pub rule: String,
}

/// Form of the jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Jump {
    /// `e9 rel32`, 5 bytes.
    Rel32,
    /// `48 b8 imm64 ff e0`, 12 bytes.
    Abs64,
}

impl Jump {
    /// Length of the jump in bytes.
    #[expect(clippy::len_without_is_empty, reason = "the length of an instruction, not of a collection")]
    pub fn len(self) -> usize {
        match self {
            Jump::Rel32 => abi::JUMP_REL32_LEN,
            Jump::Abs64 => abi::JUMP_ABS64_LEN,
        }
    }
    /// The same in the module's records.
    pub fn to_abi(self) -> abi::JumpKind {
        match self {
            Jump::Rel32 => abi::JumpKind::Rel32,
            Jump::Abs64 => abi::JumpKind::Abs64,
        }
    }
}

/// A constant of the kernel that changes in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Constant {
    /// Path of the compared object file.
    pub source: String,
    /// Symbol in the old build.
    pub symbol: String,
    /// Address minus the anchor's address, in bytes. Absent while symbolic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor_offset: Option<i64>,
    /// Size in bytes.
    pub size: u32,
    /// SHA-256 of what the image has there, as it is linked, lower-case hex. Absent while symbolic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_sha256: Option<String>,
    /// What changes in it, in words: places and what they hold before and after.
    pub changes: Vec<String>,
}

/// What of the source patches was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LeftOut {
    /// Name of the patch file.
    pub patch: String,
    /// The file of the source.
    pub file: String,
    /// Which part of it.
    pub what: String,
}

/// Something the patch brings along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Carried {
    /// Path of the compared object file.
    pub source: String,
    /// Symbol, or section+offset for data without one.
    pub symbol: String,
    /// `function`, `cold`, `string`, `rodata`, `data`, `bss` or the name of a special section.
    pub kind: String,
    /// Size in bytes.
    pub size: u32,
    /// The edge that pulled it in.
    pub why: String,
}

/// A symbol outside the patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BoundSymbol {
    /// Name, or section+offset for data without one.
    pub symbol: String,
    /// Path of the compared object that refers to it.
    pub source: String,
    /// `run-pre`, `section` (the object's section was placed by run-pre matching), `kallsyms`, `percpu`; `symbolic` while unbound.
    pub resolved: String,
    /// Address minus the anchor's address, in bytes; for `percpu` the absolute offset. Absent while symbolic, and in a module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor_offset: Option<i64>,
    /// The module that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Section of the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// Distance from the beginning of that section, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_offset: Option<u64>,
}

/// A kernel-internal symbol of the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BoundImport {
    /// Name in kallsyms.
    pub symbol: String,
    /// Address minus the anchor's address, in bytes; absent: this kernel has no such symbol and the import is optional.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor_offset: Option<i64>,
}

/// One compared object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Input {
    /// Path relative to the tree, or the file name.
    pub source: String,
    /// SHA-256 of the old object, lower-case hex.
    pub old_sha256: String,
    /// SHA-256 of the new object, lower-case hex.
    pub new_sha256: String,
}

/// An address of the patch that the kernel keeps, and that the author takes back before the patch goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeptAddress {
    /// Path of the compared object file.
    pub source: String,
    /// The function that gives the address away.
    pub function: String,
    /// What the address is of: a symbol of the patch, or the string.
    pub symbol: String,
    /// What the function does with it.
    pub what: String,
}

impl Manifest {
    /// Parses and checks a manifest.
    pub fn parse(text: &str, from: &str) -> Result<Self> {
        let m: Self =
            toml::from_str(text).map_err(|e| Error::new(codes::LP1101, Place::object(from), e.to_string()))?;
        if !(OLDEST_SCHEMA..=SCHEMA).contains(&m.schema) {
            let detail = format!("schema {} is none of {OLDEST_SCHEMA} to {SCHEMA}", m.schema);
            return Err(Error::new(codes::LP1101, Place::object(from), detail));
        }
        if (m.schema > OLDEST_SCHEMA) != m.patch.object_sha256.is_some() {
            let detail = format!("schema {} {} object-sha256", m.schema, if m.schema > 1 { "wants" } else { "has no" });
            return Err(Error::new(codes::LP1101, Place::object(from), detail));
        }
        if let Err(detail) = m.check_holders() {
            return Err(Error::new(codes::LP1101, Place::object(from), detail));
        }
        check_name(&m.patch.name, from)?;
        if !is_line(&m.patch.description) {
            let detail = format!("the description is not {LINE_RULE}");
            return Err(Error::new(codes::LP1101, Place::object(from), detail));
        }
        if m.patch.deadline_ms == 0 {
            return Err(Error::new(codes::LP1101, Place::object(from), "a deadline of 0 ms"));
        }
        if m.patch.patience_ms == 0 {
            return Err(Error::new(codes::LP1101, Place::object(from), "a patience of 0 ms"));
        }
        if let Err(detail) = check_others(&m.patch.name, &m.patch.after, &m.patch.replaces) {
            return Err(Error::new(codes::LP1101, Place::object(from), detail));
        }
        if let Some((c, f)) = m.callbacks.all().find(|(_, f)| !is_identifier(f)) {
            let detail = format!("the {} callback {f:?} is not the name of a C function", c.name());
            return Err(Error::new(codes::LP1101, Place::object(from), detail));
        }
        let known = |s: &ShadowVariable| {
            is_identifier(&s.name) && s.name.len() < abi::SHADOW_NAME && (1..=abi::SHADOW_MAX).contains(&s.size)
        };
        if let Some(s) = m.shadows.iter().find(|s| !known(s)) {
            let detail = format!("{:?} of {} bytes is no shadow variable", s.name, s.size);
            return Err(Error::new(codes::LP1101, Place::object(from), detail));
        }
        if let Some(a) = m.accepted.iter().find(|a| !is_name(&a.name)) {
            return Err(Error::new(codes::LP1101, Place::object(from), format!("{:?} is no name to accept", a.name)));
        }
        for f in &m.functions {
            let bytes = f.site.original_bytes();
            let ok = bytes.as_ref().is_some_and(|b| b.len() == usize::from(f.site.size))
                && usize::from(f.site.size) >= f.site.jump.len()
                && usize::from(f.site.size) <= abi::MAX_SITE;
            if !ok {
                let place = Place::symbol(from, &f.symbol);
                return Err(Error::new(codes::LP1101, place, "site size, jump and original bytes do not fit together"));
            }
        }
        Ok(m)
    }

    /// The text of the file; the same manifest always gives the same bytes.
    pub fn to_toml(&self) -> Result<String> {
        let head = "# Written by lpbuild; describes patch.o beside it. Schema: docs/manifest.md.\n\n";
        toml::to_string(self)
            .map(|t| format!("{head}{t}"))
            .map_err(|e| Error::new(codes::LP1101, Place::default(), e.to_string()))
    }
}

impl Site {
    /// `original` as bytes, if it is hex.
    pub fn original_bytes(&self) -> Option<Vec<u8>> {
        from_hex(&self.original)
    }
}

/// The patience of a manifest that does not name one.
fn patience() -> u32 {
    abi::PATIENCE_MS
}

fn is_patience(ms: &u32) -> bool {
    *ms == patience()
}

/// The longest patch name in bytes.
pub const NAME_MAX: usize = 48;
/// The longest version in bytes.
pub const VERSION_MAX: usize = 32;
/// The longest kernel release in bytes (`__NEW_UTS_LEN`).
pub const RELEASE_MAX: usize = 64;
/// The longest description in bytes.
pub const LINE_MAX: usize = 200;
/// What [`is_line`] wants, for messages.
pub const LINE_RULE: &str = "one line of at most 200 bytes without control characters";

/// A text that goes into C source and make files as it is.
pub fn is_plain(s: &str, max: usize) -> bool {
    (1..=max).contains(&s.len()) && s.bytes().all(|c| c.is_ascii_graphic() && !b"\"\\$#`'%?".contains(&c))
}

/// What [`is_plain`] wants, for messages.
pub fn plain_rule(max: usize) -> String {
    format!("1 to {max} ASCII characters without blanks, quotes and any of \\ $ # % ?")
}

/// A line of text for people.
pub fn is_line(s: &str) -> bool {
    s.len() <= LINE_MAX && !s.chars().any(char::is_control)
}

/// The name of a C function.
pub fn is_identifier(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && s.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// The name of a constant in `data`: that of a C object, alone or behind `path/file.o:`.
pub fn check_data_name(name: &str) -> std::result::Result<(), String> {
    let (of, symbol) = name.split_once(':').unwrap_or(("x.o", name));
    let plain = symbol.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.".contains(&c));
    if is_name(of) && !symbol.is_empty() && plain && !symbol.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(());
    }
    Err(format!("{name:?} is not the name of a constant, nor path/file.o:NAME"))
}

/// A patch name is also a module name and a sysfs folder.
pub fn check_name(name: &str, from: &str) -> Result<()> {
    let ok = !name.is_empty()
        && name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
    if ok {
        return Ok(());
    }
    let detail = format!("the patch name {name:?} is not [a-z][a-z0-9_]* of at most 48 bytes");
    Err(Error::new(codes::LP1101, Place::object(from), detail))
}

/// `after` and `replaces` name other patches, each once.
pub fn check_others(own: &str, after: &[String], replaces: &[String]) -> std::result::Result<(), String> {
    let all: Vec<&String> = after.iter().chain(replaces).collect();
    for (i, name) in all.iter().enumerate() {
        let earlier = all.get(..i).is_some_and(|before| before.contains(name));
        check_other(own, name, earlier)?;
    }
    Ok(())
}

/// One entry of `after` or `replaces`; `earlier`: it was named before, in either of them.
pub fn check_other(own: &str, name: &str, earlier: bool) -> std::result::Result<(), String> {
    if let Err(e) = check_name(name, "") {
        return Err(e.problems.into_iter().map(|p| p.detail).collect());
    }
    if name == own {
        return Err(format!("{name} is the name of the patch itself"));
    }
    if earlier { Err(format!("{name} is named twice in `after` and `replaces`")) } else { Ok(()) }
}

mod hex_u64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
    pub fn serialize<S: Serializer>(v: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{v:#018x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        let s = String::deserialize(d)?;
        let digits =
            s.strip_prefix("0x").ok_or_else(|| D::Error::custom("expected a hex string that begins with 0x"))?;
        u64::from_str_radix(digits, 16).map_err(D::Error::custom)
    }
}
