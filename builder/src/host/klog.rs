//! The kernel's log, as far as it speaks of one module.
//!
//! Input: /dev/kmsg records written after a point in time. Output: [`KernelMessages`]: why the runtime refused, which
//! tasks stood in the way, and what the module loader itself said. Nothing is refused: a log that cannot be read says
//! nothing.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use super::state::Blocker;
use super::system::Host;

/// Longest record the kernel hands out (CONSOLE_EXT_LOG_MAX).
const MAX_RECORD: usize = 8192;
/// Most records looked at: the runtime writes a few dozen at most, the rest is noise of others.
const MAX_RECORDS: usize = 100_000;

/// What the log says about a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelMessages {
    /// Code and text of each refusal: `lpbuild: NAME: LP50nn: text`.
    pub refusals: Vec<(String, String)>,
    /// `lpbuild: NAME: blocker pid=P comm=C at=PLACE`.
    pub blockers: Vec<Blocker>,
    /// `NAME: text` by the module loader.
    pub loader: Vec<String>,
    /// The log could not be opened.
    pub unreadable: bool,
}

/// A place in the log.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<File>,
}

impl Log {
    /// What is written from now on.
    pub(super) fn from_now(host: &Host) -> Self {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(nonblocking).open(host.path("dev/kmsg"));
        let file = opened.ok().and_then(|mut f| f.seek(SeekFrom::End(0)).ok().map(|_| f));
        Self { file }
    }

    /// Everything since then about the module `name`.
    pub(super) fn about(mut self, name: &str) -> KernelMessages {
        let mut text = String::new();
        let Some(file) = &mut self.file else {
            return KernelMessages { unreadable: true, ..KernelMessages::default() };
        };
        let mut record = vec![0; MAX_RECORD];
        for _ in 0..MAX_RECORDS {
            match file.read(&mut record) {
                Ok(0) => break,
                Ok(n) => text.push_str(&String::from_utf8_lossy(record.get(..n).unwrap_or_default())),
                // Older records were overwritten: go on with the oldest there is.
                Err(e) if e.kind() == ErrorKind::BrokenPipe || e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        parse_log(&text, name)
    }
}

/// Picks the lines about the module `name` out of /dev/kmsg records (Documentation/ABI/testing/dev-kmsg):
/// `PRIORITY,NUMBER,TIME,FLAGS[,...];TEXT`, and ` KEY=VALUE` lines behind a record.
pub fn parse_log(records: &str, name: &str) -> KernelMessages {
    let mut found = KernelMessages::default();
    let (ours, loader) = (format!("lpbuild: {name}: "), format!("{name}: "));
    for line in records.lines().filter(|l| !l.starts_with(' ')) {
        let Some((_, text)) = line.split_once(';') else { continue };
        if let Some(text) = text.strip_prefix(&ours) {
            if let Some(blocker) = text.strip_prefix("blocker ").and_then(blocker) {
                found.blockers.push(blocker);
            } else if let Some((code, text)) = text.split_once(": ")
                && code.len() == 6
                && code.starts_with("LP")
            {
                found.refusals.push((code.to_owned(), text.to_owned()));
            }
        } else if let Some(text) = text.strip_prefix(&loader) {
            found.loader.push(text.to_owned());
        }
    }
    found
}

/// `pid=P comm=C at=PLACE`
fn blocker(text: &str) -> Option<Blocker> {
    let (pid, rest) = text.strip_prefix("pid=")?.split_once(" comm=")?;
    let (comm, place) = rest.rsplit_once(" at=")?;
    Some(Blocker { pid: pid.parse().ok()?, comm: comm.to_owned(), place: place.to_owned() })
}
