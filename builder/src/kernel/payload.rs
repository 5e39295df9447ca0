//! The compressed vmlinux inside a bzImage, and compressed modules.
//!
//! Input: the payload as scripts/Makefile.lib makes it: a compressed stream, followed for every format but gzip by the
//! unpacked size (32 bits, little endian; gzip ends with it anyway). Output: the ELF, maybe followed by a relocation list.
//! Refused: unknown formats, damage, a size other than the recorded one, more than [`MAX_UNPACKED`].

use std::borrow::Cow;
use std::io::{self, Read};

use crate::codes;
use crate::error::{Error, Place, Result};

/// Largest vmlinux.bin unpacked. Real ones have 50 to 100 MB; the kernel's address range is 1 GiB (CONFIG_RANDOMIZE_BASE).
const MAX_UNPACKED: usize = 1 << 30;
/// Largest block of the lz4 legacy format.
const LZ4_BLOCK: usize = 8 << 20;
/// Archive magic of the lz4 legacy format.
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Largest block lzop writes.
const LZO_BLOCK: usize = 64 << 20;
/// First bytes of an lzop file.
const LZO_MAGIC: [u8; 9] = [0x89, b'L', b'Z', b'O', 0, b'\r', b'\n', 0x1a, b'\n'];
/// Largest window accepted from a zstd stream: `zstd -22 --ultra`, as kbuild calls it, uses 128 MiB.
const ZSTD_WINDOW: u64 = 128 << 20;
/// Bytes that are made room for first.
const XZ_STEP: usize = 4 << 20;
/// Largest xz dictionary accepted: kbuild uses at most 128 MiB.
const XZ_DICTIONARY: usize = 128 << 20;

/// The compressions of arch/x86/boot/compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lzo,
    Lz4,
    Zstd,
    None,
}

impl Format {
    fn of(payload: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], Format); 9] = [
            (&[0x1f, 0x8b], Format::Gzip),
            (&[0x1f, 0x9e], Format::Gzip),
            (b"BZh", Format::Bzip2),
            (&[0x5d, 0x00, 0x00], Format::Lzma),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Format::Xz),
            (&LZO_MAGIC, Format::Lzo),
            (&LZ4_MAGIC, Format::Lz4),
            (&[0x28, 0xb5, 0x2f, 0xfd], Format::Zstd),
            (b"\x7fELF", Format::None),
        ];
        MAGICS.iter().find(|(magic, _)| payload.starts_with(magic)).map(|&(_, format)| format)
    }
}

/// Unpacks `payload`.
pub(super) fn unpack<'d>(name: &str, payload: &'d [u8]) -> Result<Cow<'d, [u8]>> {
    let Some(format) = Format::of(payload) else {
        let first: Vec<u8> = payload.iter().take(8).copied().collect();
        let detail = format!("the payload begins with {first:02x?}");
        return Err(Error::new(codes::LP1203, Place::object(name), detail));
    };
    if format == Format::None {
        return Ok(Cow::Borrowed(payload));
    }
    let bad = |detail: String| Error::new(codes::LP1204, Place::object(name), format!("{format:?}: {detail}"));
    let (stream, tail) =
        payload.split_last_chunk::<4>().ok_or_else(|| bad("the payload is shorter than its size field".to_owned()))?;
    let size = u32::from_le_bytes(*tail) as usize;
    if size > MAX_UNPACKED {
        return Err(bad(format!("the recorded size of {size} bytes is more than any kernel has")));
    }
    let out = match format {
        Format::Gzip => read_all(flate2::read::GzDecoder::new(payload), size),
        Format::Bzip2 => read_all(bzip2::read::BzDecoder::new(stream), size),
        Format::Lzma => lzma(stream, size),
        Format::Xz => xz(stream, size),
        Format::Lzo => lzo(stream, size),
        Format::Lz4 => lz4(stream, size),
        Format::Zstd => zstd(stream, size),
        Format::None => Err(io::ErrorKind::Unsupported.into()),
    }
    .map_err(|e| bad(e.to_string()))?;
    if out.len() != size {
        return Err(bad(format!("{} bytes came out, {size} are recorded", out.len())));
    }
    Ok(Cow::Owned(out))
}

/// Unpacks a file that is compressed as modules are (scripts/Makefile.modinst: gzip, xz or zstd), up to `limit` bytes; one that is
/// not is the same.
pub(crate) fn unpack_file(data: &[u8], limit: usize) -> io::Result<Cow<'_, [u8]>> {
    let out = match Format::of(data) {
        Some(Format::Gzip) => read_all(flate2::read::GzDecoder::new(data), limit)?,
        Some(Format::Xz) => xz(data, limit)?,
        Some(Format::Zstd) => zstd(data, limit)?,
        _ => return Ok(Cow::Borrowed(data)),
    };
    if out.len() > limit { Err(damaged("more came out than any module has")) } else { Ok(Cow::Owned(out)) }
}

/// Reads at most `size` bytes and one more, so that a longer stream shows as a wrong size.
fn read_all(stream: impl Read, size: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    stream.take(size as u64 + 1).read_to_end(&mut out)?;
    Ok(out)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn lzma(mut stream: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut out = Bounded { bytes: Vec::new(), limit: size };
    let options = lzma_rs::decompress::Options { memlimit: Some(MAX_UNPACKED), ..Default::default() };
    lzma_rs::lzma_decompress_with_options(&mut stream, &mut out, &options).map_err(|e| damaged(&format!("{e:?}")))?;
    Ok(out.bytes)
}

fn xz(stream: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut decoder = xz4rust::XzDecoder::in_heap_with_alloc_dict_size(xz4rust::DICT_SIZE_MIN, XZ_DICTIONARY);
    let mut out = vec![0; size.min(XZ_STEP)];
    let (mut taken, mut made) = (0usize, 0usize);
    // One byte more than recorded, so that the decoder can show that there is more.
    let mut spill = [0u8; 1];
    loop {
        if made == out.len() && made < size {
            out.resize(made.saturating_mul(2).clamp(XZ_STEP, size.max(XZ_STEP)).min(size), 0);
        }
        let input = stream.get(taken..).unwrap_or_default();
        let room = out.get_mut(made..).unwrap_or_default();
        let full = room.is_empty();
        let step = decoder.decode(input, if full { &mut spill } else { room }).map_err(|e| damaged(&e.to_string()))?;
        if full && step.output_produced() > 0 {
            return Err(damaged("more came out than recorded"));
        }
        taken = taken.saturating_add(step.input_consumed());
        made = made.saturating_add(step.output_produced());
        if step.is_end_of_stream() {
            out.truncate(made);
            return Ok(out);
        }
        if !step.made_progress() {
            return Err(damaged("the stream ends early"));
        }
    }
}

fn zstd(mut stream: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(&mut stream, ZSTD_WINDOW)
        .map_err(io::Error::other)?;
    let out = read_all(&mut decoder, size)?;
    let decoder = decoder.into_frame_decoder();
    if let Some(wanted) = decoder.get_checksum_from_data()
        && decoder.get_calculated_checksum() != Some(wanted)
    {
        return Err(damaged("wrong checksum"));
    }
    Ok(out)
}

/// The legacy frame: magic, then blocks of (packed size, data), each of which unpacks to at most 8 MiB.
fn lz4(stream: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let early = || damaged("the stream ends early");
    let mut out = Vec::new();
    let mut rest = stream;
    while let Some((head, body)) = rest.split_first_chunk::<4>() {
        if *head == LZ4_MAGIC {
            rest = body;
            continue;
        }
        let packed = u32::from_le_bytes(*head) as usize;
        let (block, behind) = body.split_at_checked(packed).ok_or_else(early)?;
        // All blocks but the last are full, which bounds their number.
        if !out.len().is_multiple_of(LZ4_BLOCK) {
            return Err(damaged("a block behind one that is not full"));
        }
        let room = LZ4_BLOCK.min(size.saturating_sub(out.len()));
        let unpacked = lz4_flex::block::decompress(block, room).map_err(|e| damaged(&e.to_string()))?;
        out.extend_from_slice(&unpacked);
        rest = behind;
    }
    if rest.is_empty() { Ok(out) } else { Err(early()) }
}

/// lzop framing as lib/decompress_unlzo.c reads it: header, then blocks of (size, packed size, checksums, data), then 0.
fn lzo(stream: &[u8], size: usize) -> io::Result<Vec<u8>> {
    const VERSION_WITH_LEVEL: u16 = 0x0940;
    const ADLER32_UNPACKED: u32 = 1;
    const ADLER32_PACKED: u32 = 2;
    const CRC32_UNPACKED: u32 = 0x100;
    const CRC32_PACKED: u32 = 0x200;
    const HAS_FILTER: u32 = 0x800;

    let mut input = BigEndian(stream.get(LZO_MAGIC.len()..).unwrap_or_default());
    let version = input.u16()?;
    input.u16()?; // version of the library
    if version >= VERSION_WITH_LEVEL {
        input.u16()?; // version needed to extract
    }
    input.u8()?; // method
    if version >= VERSION_WITH_LEVEL {
        input.u8()?; // level
    }
    let flags = input.u32()?;
    if flags & HAS_FILTER != 0 {
        input.u32()?;
    }
    input.u32()?; // mode
    input.u32()?; // time
    if version >= VERSION_WITH_LEVEL {
        input.u32()?; // time, upper half
    }
    let file_name = input.u8()?;
    input.take(usize::from(file_name))?;
    input.u32()?; // checksum of the header

    let mut out = Vec::new();
    loop {
        let unpacked = input.u32()? as usize;
        if unpacked == 0 {
            return Ok(out);
        }
        let packed = input.u32()? as usize;
        if unpacked > LZO_BLOCK || packed > unpacked || unpacked > size.saturating_sub(out.len()) {
            return Err(damaged("impossible block size"));
        }
        for flag in [ADLER32_UNPACKED, CRC32_UNPACKED] {
            if flags & flag != 0 {
                input.u32()?;
            }
        }
        for flag in [ADLER32_PACKED, CRC32_PACKED] {
            if flags & flag != 0 && packed < unpacked {
                input.u32()?;
            }
        }
        let block = input.take(packed)?;
        if packed == unpacked {
            out.extend_from_slice(block);
        } else {
            let mut plain = vec![0; unpacked];
            lzo1x::decompress(block, &mut plain).map_err(|e| damaged(&e.to_string()))?;
            out.extend_from_slice(&plain);
        }
    }
}

struct BigEndian<'d>(&'d [u8]);

impl<'d> BigEndian<'d> {
    fn take(&mut self, n: usize) -> io::Result<&'d [u8]> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(*head)
    }
    fn u8(&mut self) -> io::Result<u8> {
        self.array().map(u8::from_be_bytes)
    }
    fn u16(&mut self) -> io::Result<u16> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_be_bytes)
    }
}

/// A sink that refuses to grow past its limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.len() > self.limit.saturating_sub(self.bytes.len()) {
            return Err(damaged("more came out than recorded"));
        }
        self.bytes.extend_from_slice(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
