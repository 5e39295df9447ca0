//! Files that a user names are read up to a bound: a device may have no end.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::codes;
use crate::error::{Error, Place, Result};

/// Bytes of the largest object file or kernel image.
pub const LARGE: u64 = 1 << 31;
/// Bytes of the largest text: a patch, a configuration, a script.
pub const TEXT: u64 = 1 << 26;

/// What a file holds, which may be a pipe.
///
/// # Errors
/// LP1001: it goes on behind `most` bytes; those of [`Error::io`].
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let io = |e: std::io::Error| Error::io(path, &e);
    let file = File::open(path).map_err(io)?;
    // At once, where the size is known: one more, so that the end is seen.
    let size = file.metadata().map_or(0, |m| if m.is_file() { m.len().min(most).saturating_add(1) } else { 0 });
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(most.saturating_add(1)).read_to_end(&mut content).map_err(io)?;
    if content.len() as u64 > most {
        let what = format!("it has more than {most} bytes, which no file of its kind has");
        return Err(Error::new(codes::LP1001, Place::object(path.display().to_string()), what));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_an_end_is_refused() {
        let e = read(Path::new("/dev/zero"), 1000).unwrap_err();
        assert!(e.to_string().contains("more than 1000 bytes"), "{e}");
        assert_eq!(read(Path::new("/dev/null"), 0).unwrap(), b"");
    }
}
