//! The bzImage container: Documentation/arch/x86/boot.rst.
//!
//! Input: the bytes of a `vmlinuz`. Output: [`BootImage`], its payload still compressed.
//! Refused: boot protocols before 2.08, offsets outside the file.

use crate::codes;
use crate::error::{Error, Place, Result};

/// Offset of `setup_sects`: 512-byte sectors of real-mode code behind the boot sector.
const SETUP_SECTS: usize = 0x1f1;
/// Offset of the magic `HdrS`.
const HEADER_MAGIC: usize = 0x202;
/// Offset of the protocol version.
const VERSION: usize = 0x206;
/// Offset of the pointer to the version string, relative to 0x200.
const KERNEL_VERSION: usize = 0x20e;
/// Offset of `payload_offset`, relative to the protected-mode code.
const PAYLOAD_OFFSET: usize = 0x248;
/// Offset of `payload_length`.
const PAYLOAD_LENGTH: usize = 0x24c;
/// First protocol with a payload that can be found: 2.08, Linux 2.6.26.
const MIN_VERSION: u16 = 0x0208;
/// The longest version string looked at.
const MAX_RELEASE: usize = 256;

/// A bzImage.
#[derive(Debug)]
pub(super) struct BootImage<'d> {
    /// Compressed vmlinux, with its trailing size field where the format has one.
    pub payload: &'d [u8],
    /// The first word of the version string; absent when the header has none.
    pub release: Option<String>,
}

/// Parses the boot header; `None` when the file is not a bzImage.
pub(super) fn parse<'d>(name: &str, data: &'d [u8]) -> Result<Option<BootImage<'d>>> {
    if data.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS") {
        return Ok(None);
    }
    let bad = |at: usize, detail: String| Error::new(codes::LP1202, Place::object(name).at(at as u64), detail);
    let truncated = || bad(data.len(), "the file ends inside the boot header".to_owned());
    let version = u16_at(data, VERSION).ok_or_else(truncated)?;
    if version < MIN_VERSION {
        let detail = format!("boot protocol {}.{:02} says nothing about the payload", version >> 8, version & 0xff);
        return Err(bad(VERSION, detail));
    }
    let sectors = match data.get(SETUP_SECTS).copied().ok_or_else(truncated)? {
        0 => 4,
        n => usize::from(n),
    };
    let offset = u32_at(data, PAYLOAD_OFFSET).ok_or_else(truncated)?;
    let length = u32_at(data, PAYLOAD_LENGTH).ok_or_else(truncated)?;
    let start = (sectors + 1) * 512 + offset as usize;
    let payload = data.get(start..).and_then(|d| d.get(..length as usize)).ok_or_else(|| {
        bad(
            PAYLOAD_OFFSET,
            format!("the payload ({start:#x}, {length:#x} bytes) ends behind the file ({:#x})", data.len()),
        )
    })?;
    if payload.is_empty() {
        return Err(bad(PAYLOAD_LENGTH, "the payload is empty".to_owned()));
    }
    Ok(Some(BootImage { payload, release: release(data) }))
}

fn release(data: &[u8]) -> Option<String> {
    let pointer = u16_at(data, KERNEL_VERSION).filter(|&p| p != 0)?;
    let text = data.get(usize::from(pointer) + 0x200..)?;
    let end = text.iter().take(MAX_RELEASE).position(|&c| c == 0)?;
    let text = std::str::from_utf8(text.get(..end)?).ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}
