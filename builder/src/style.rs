//! Colours of what people read; `anstream` takes them out where the stream is no terminal or NO_COLOR is set.

use anstyle::{AnsiColor, Style};

/// What went well.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Errors, refusals, failures.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Warnings and notes.
pub const NOTE: Style = AnsiColor::Yellow.on_default().bold();
/// Headings.
pub const HEAD: Style = Style::new().bold();
/// What matters less.
pub const DIM: Style = Style::new().dimmed();
