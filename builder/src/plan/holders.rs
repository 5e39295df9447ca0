//! What a manifest says of kernel modules: which they are, and how the runtime finds their sections.
//!
//! Input: a manifest. Output: nothing. Refused: modules and what is said to be in them that do not fit together.

use lpbuild_abi as abi;
use serde::{Deserialize, Serialize};

use super::manifest::{Function, Manifest, SCHEMA, SCHEMA_OF_KERNEL, SCHEMA_OF_MODULES};
use crate::hash::from_hex;
use crate::holder::VMLINUX;

/// A kernel module that has functions of the patch, or exports something to one that has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HolderEntry {
    /// Its name, as `/sys/module` has it.
    pub name: String,
    /// GNU build id, lower-case hex.
    pub build_id: String,
    /// SHA-256 of its file, unpacked; lower-case hex.
    pub file_sha256: String,
    /// Other modules of the patch that it refers to; they are here whenever it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Its sections that the patch refers to, in the order in which they are found.
    #[serde(default, rename = "section", skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<HolderSection>,
}

/// A section of a module, and how the runtime finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HolderSection {
    /// Its name.
    pub name: String,
    /// Its size in bytes, at least 1.
    pub size: u64,
    /// `symbol`, `field`, `module` (it is `struct module`) or `percpu`.
    pub found: String,
    /// The symbol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<SectionSymbol>,
    /// A second symbol, which must lead to the same place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<SectionSymbol>,
    /// The field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<SectionField>,
}

/// A symbol of a section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SectionSymbol {
    /// Its name.
    pub name: String,
    /// Its distance from the beginning of the section, in bytes.
    pub offset: u64,
    /// Its place among those of its name in the symbol table, from 0, without those of init sections.
    pub position: u32,
    /// How many there are.
    pub count: u32,
}

/// A field that refers to a section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SectionField {
    /// The section it is in.
    pub section: String,
    /// Where it is there, in bytes.
    pub offset: u64,
    /// What it refers to, less the beginning of the section, in bytes.
    pub delta: i64,
}

impl Manifest {
    /// Do the modules and what is said to be in them fit together?
    pub(super) fn check_holders(&self) -> std::result::Result<(), String> {
        let plain = self.data.is_empty() && self.left_out.is_empty() && self.shadows.is_empty();
        let fits = match (plain, self.holders.is_empty()) {
            (false, _) => self.schema == SCHEMA,
            (true, false) => self.schema == SCHEMA_OF_MODULES,
            (true, true) => self.schema <= SCHEMA_OF_KERNEL,
        };
        if !fits {
            return Err(format!("schema {} does not have what it has", self.schema));
        }
        let has = |name: &str| self.holders.iter().any(|h| h.name == name);
        for h in &self.holders {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if h.name.is_empty() || h.name == VMLINUX || !h.name.chars().all(plain) {
                return Err(format!("{:?} is no name of a module", h.name));
            }
            if from_hex(&h.build_id).is_none_or(|id| id.is_empty() || id.len() > abi::MAX_BUILD_ID) {
                return Err(format!("the build id of {} is none", h.name));
            }
            if let Some(other) = h.needs.iter().find(|n| **n == h.name || !has(n)) {
                return Err(format!("{} needs {other}, which is none of the other holders", h.name));
            }
            if !h.needs.is_sorted_by(|a, b| a < b) {
                return Err(format!("what {} needs is not in the order of names", h.name));
            }
            if !h.needs.is_empty() && !self.functions.iter().any(|f| f.object == h.name) {
                return Err(format!("{} has no function, and needs other modules", h.name));
            }
            for s in &h.sections {
                let parts = (s.symbol.is_some(), s.field.is_some());
                let fits = match s.found.as_str() {
                    "symbol" => parts == (true, false),
                    "field" => parts == (false, true) && s.witness.is_none(),
                    "module" | "percpu" => parts == (false, false) && s.witness.is_none(),
                    _ => false,
                };
                if !fits {
                    return Err(format!(
                        "{} of {} is found by {:?}, and what that takes is not there",
                        s.name, h.name, s.found
                    ));
                }
            }
        }
        if !self.holders.is_sorted_by(|a, b| a.name < b.name) {
            return Err("the holders are not in the order of their names".into());
        }
        let mut places = Vec::new();
        for f in &self.functions {
            let own = (f.object.as_str(), &f.anchor_offset, &f.section, &f.section_offset, f.symbol.as_str());
            places.push(own);
            places.extend(
                f.pieces.iter().map(|p| (own.0, &p.anchor_offset, &p.section, &p.section_offset, p.symbol.as_str())),
            );
        }
        for s in &self.symbols {
            let object = s.object.as_deref().unwrap_or(VMLINUX);
            places.push((object, &s.anchor_offset, &s.section, &s.section_offset, s.symbol.as_str()));
        }
        for (object, anchor_offset, section, offset, symbol) in places {
            let fits = match object {
                VMLINUX => section.is_none() && offset.is_none(),
                module => has(module) && anchor_offset.is_none() && section.is_some() && offset.is_some(),
            };
            // Symbolic ones, and those of schemas before, name an object that is none.
            let symbolic = self.holders.is_empty() && section.is_none() && offset.is_none();
            if !fits && !symbolic {
                return Err(format!("{symbol} is said to be in {object}, and not where"));
            }
        }
        let order = |f: &Function| (f.object != VMLINUX, f.object.clone());
        if !self.functions.is_sorted_by_key(order) && !self.holders.is_empty() {
            return Err("the functions are not in the order of the holders".into());
        }
        Ok(())
    }
}
