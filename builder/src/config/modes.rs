//! Which quiesce modes there are, and which of them the runtime of this version has. The one place that says so.

use crate::manifest::Mode;

use super::text::nearest;

/// The word for each mode in livepatch.toml, and the mode where the runtime has it.
pub(super) const MODES: &[(&str, Option<Mode>)] =
    &[("stop-machine", Some(Mode::StopMachine)), ("drain", None), ("transition", None)];

/// The mode of a word, or code and sentence of what is wrong with it.
pub(super) fn mode(word: &str) -> Result<Mode, (&'static str, String)> {
    match MODES.iter().find(|(name, _)| *name == word) {
        Some((_, Some(mode))) => Ok(*mode),
        Some((_, None)) => {
            let have: Vec<&str> = MODES.iter().filter(|(_, m)| m.is_some()).map(|(name, _)| *name).collect();
            Err(("LP6007", format!("mode {word:?}; this version has: {}", have.join(", "))))
        }
        None => {
            let all: Vec<&str> = MODES.iter().map(|(name, _)| *name).collect();
            let hint = nearest(word, &all).unwrap_or_default();
            Err(("LP6005", format!("there is no mode {word:?}{hint}; known: {}", all.join(", "))))
        }
    }
}
