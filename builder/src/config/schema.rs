//! The tables and keys of `livepatch.toml`, as serde reads them. Types only: what the values mean is `resolve`.
//!
//! Refused: unknown tables and keys, missing keys, values of another type. docs/livepatch.md describes each key.

use serde::Deserialize;
use toml::Spanned;

/// A value and the bytes of the file it was read from.
pub(super) type Value<T> = Option<Spanned<T>>;

/// Every table with its keys. Suggestions for a key in the wrong table come from here; a test holds it to the structs.
pub(super) const TABLES: &[(&str, &[&str])] = &[
    (
        "patch",
        &[
            "name",
            "version",
            "description",
            "patches",
            "leave-out",
            "functions",
            "mode",
            "after",
            "replaces",
            "deadline-ms",
            "patience-ms",
            "oneshot",
            "jump",
            "data",
        ],
    ),
    ("kernel", &["release", "image", "headers", "source", "config", "compiler", "module-dir"]),
    ("module", &["source", "files"]),
    ("build", &["flags"]),
    ("callbacks", &["pre-apply", "post-apply", "pre-revert", "post-revert"]),
    ("accept", &["types", "constants", "lists", "signatures", "inlines", "promises", "names", "states", "outside"]),
    ("sign", &["key", "certificate"]),
];

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct File {
    pub patch: Patch,
    #[serde(default)]
    pub kernel: Kernel,
    pub module: Option<Module>,
    #[serde(default)]
    pub build: Build,
    #[serde(default)]
    pub callbacks: Callbacks,
    #[serde(default)]
    pub accept: Accept,
    pub sign: Option<Sign>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct Patch {
    pub name: Spanned<String>,
    pub version: Value<String>,
    pub description: Value<String>,
    pub patches: Spanned<Vec<Spanned<String>>>,
    pub leave_out: Value<Vec<Spanned<String>>>,
    pub functions: Value<Vec<Spanned<String>>>,
    pub mode: Value<String>,
    pub after: Value<Vec<Spanned<String>>>,
    pub replaces: Value<Vec<Spanned<String>>>,
    pub deadline_ms: Value<i64>,
    pub patience_ms: Value<i64>,
    pub oneshot: Value<bool>,
    pub jump: Value<String>,
    pub data: Value<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct Kernel {
    pub release: Value<String>,
    pub image: Value<String>,
    pub headers: Value<String>,
    pub source: Value<String>,
    pub config: Value<String>,
    pub compiler: Value<String>,
    pub module_dir: Value<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct Module {
    pub source: Spanned<String>,
    #[serde(default)]
    pub files: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct Build {
    #[serde(default)]
    pub flags: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct Callbacks {
    pub pre_apply: Value<String>,
    pub post_apply: Value<String>,
    pub pre_revert: Value<String>,
    pub post_revert: Value<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct Accept {
    pub types: Value<Vec<Spanned<String>>>,
    pub constants: Value<Vec<Spanned<String>>>,
    pub lists: Value<Vec<Spanned<String>>>,
    pub signatures: Value<Vec<Spanned<String>>>,
    pub inlines: Value<Vec<Spanned<String>>>,
    pub promises: Value<Vec<Spanned<String>>>,
    pub names: Value<Vec<Spanned<String>>>,
    pub states: Value<Vec<Spanned<String>>>,
    pub outside: Value<Vec<Spanned<String>>>,
}

impl Accept {
    /// The names of a kind.
    pub fn of(&self, kind: crate::accept::Accept) -> &[Spanned<String>] {
        use crate::accept::Accept;
        let value = match kind {
            Accept::Type => &self.types,
            Accept::Constant => &self.constants,
            Accept::List => &self.lists,
            Accept::Signature => &self.signatures,
            Accept::Inline => &self.inlines,
            Accept::Promise => &self.promises,
            Accept::Name => &self.names,
            Accept::State => &self.states,
            Accept::Outside => &self.outside,
        };
        value.as_ref().map_or(&[], |v| v.get_ref())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct Sign {
    pub key: Spanned<String>,
    pub certificate: Spanned<String>,
}
