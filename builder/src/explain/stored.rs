//! The [`Record`] on disk: `why.json` beside the manifest, and the same bytes in a section of the module that is not loaded.
//!
//! One line of JSON, in the order of the fields, so that the same patch always has the same bytes. Refused: what does not parse, is
//! of another schema, or was written for another patch.o (LP1112).

use super::{Record, SCHEMA};
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::plan::Analysis;
use crate::plan::manifest::Manifest;

/// Its name in a patch folder.
pub const FILE: &str = "why.json";

/// The text of the file for an analysis and its patch.
///
/// # Errors
/// LP1000.
pub fn text(analysis: &Analysis, manifest: &Manifest) -> Result<String> {
    let record = Record { object_sha256: manifest.patch.object_sha256.clone(), ..super::gather::of(analysis) };
    let json =
        serde_json::to_string(&record).map_err(|e| Error::new(codes::LP1000, Place::object(FILE), e.to_string()))?;
    Ok(json + "\n")
}

/// Reads it again.
///
/// # Errors
/// LP1112.
pub fn parse(bytes: &[u8], manifest: &Manifest, from: &str) -> Result<Record> {
    let bad = |detail: String| Err(Error::new(codes::LP1112, Place::object(from), detail));
    let record: Record = match serde_json::from_slice(bytes) {
        Ok(record) => record,
        Err(e) => return bad(e.to_string()),
    };
    if record.schema != SCHEMA {
        return bad(format!("schema {} is not {SCHEMA}", record.schema));
    }
    if record.object_sha256 != manifest.patch.object_sha256 {
        return bad("it was written for another patch.o than the manifest".to_owned());
    }
    let count = record.subjects.len();
    let beyond = |i: &u32| *i as usize >= count;
    if let Some(s) = record.subjects.iter().find(|s| s.by.iter().chain(&s.carried).any(beyond)) {
        return bad(format!("{} refers to a subject that is not there", s.symbol));
    }
    Ok(record)
}
