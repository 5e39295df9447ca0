//! Payloads in every format, made as scripts/Makefile.lib makes them.

use std::io::Write;

/// Each format with its compressor; all but gzip get the size appended.
pub fn all(data: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let sized = |mut packed: Vec<u8>| {
        packed.extend((data.len() as u32).to_le_bytes());
        packed
    };
    vec![
        ("gzip", gzip(data)),
        ("bzip2", sized(bzip2(data))),
        ("lzma", sized(lzma(data))),
        ("xz", sized(xz(data))),
        ("lzo", sized(lzo(data))),
        ("lz4", sized(lz4(data))),
        ("zstd", sized(ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest))),
    ]
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(data: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(9));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn lzma(mut data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    lzma_rs::lzma_compress(&mut data, &mut out).unwrap();
    out
}

fn lz4(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x02, 0x21, 0x4c, 0x18];
    for block in data.chunks(8 << 20) {
        let packed = lz4_flex::block::compress(block);
        out.extend((packed.len() as u32).to_le_bytes());
        out.extend(packed);
    }
    out
}

/// The header of lzop 1.04 without its optional fields, then its blocks with an Adler-32 each.
fn lzo(data: &[u8]) -> Vec<u8> {
    let mut out = b"\x89LZO\0\r\n\x1a\n\x10\x40\x20\xa0\x09\x40\x03\x09".to_vec();
    out.extend(1u32.to_be_bytes());
    out.extend([0; 12]); // mode, time
    out.push(4);
    out.extend(b"name");
    out.extend([0; 4]); // checksum
    for block in data.chunks(256 << 10) {
        let packed = lzo1x::compress(block, lzo1x::CompressLevel::default());
        let packed = if packed.len() < block.len() { packed.as_slice() } else { block };
        out.extend((block.len() as u32).to_be_bytes());
        out.extend((packed.len() as u32).to_be_bytes());
        out.extend([0; 4]); // Adler-32, which nobody checks
        out.extend(packed);
    }
    out.extend([0; 4]);
    out
}

fn crc32(data: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum().to_le_bytes()
}

const CALL: [u8; 13] = [0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xe8, 0x10, 0x20, 0x00, 0x00, 0x90, 0x90];

/// Puts calls into `code`, and takes out whatever else the x86 filter of xz would take for one.
pub fn put_calls(code: &mut [u8]) {
    for byte in code.iter_mut().filter(|b| matches!(**b, 0xe8 | 0xe9)) {
        *byte = 0x90;
    }
    code[..CALL.len()].copy_from_slice(&CALL);
    code[0x100..0x100 + CALL.len()].copy_from_slice(&CALL);
}

/// The bytes from the first call of [`put_calls`] to behind the last; empty when there is none.
fn filtered_range(data: &[u8]) -> std::ops::Range<usize> {
    let calls: Vec<usize> = (0..data.len()).filter(|&i| data[i..].starts_with(&CALL)).collect();
    calls.first().copied().unwrap_or(0)..calls.last().map_or(0, |last| last + CALL.len())
}

/// What `xz --x86` does to calls: the displacement becomes an absolute offset.
fn x86_filter(code: &[u8]) -> Vec<u8> {
    let mut out = code.to_vec();
    for at in (0..code.len()).filter(|&i| code[i] == 0xe8) {
        let field: [u8; 4] = code[at + 1..at + 5].try_into().unwrap();
        let absolute = u32::from_le_bytes(field).wrapping_add(at as u32 + 5);
        out[at + 1..at + 5].copy_from_slice(&absolute.to_le_bytes());
    }
    out
}

/// An xz stream of three blocks, the middle one with the x86 filter; CRC32, stored LZMA2 chunks. Layout: the .xz file
/// format, version 1.2.
pub fn xz(data: &[u8]) -> Vec<u8> {
    let calls = filtered_range(data);
    let flags = [0, 1];
    let mut out = b"\xfd7zXZ\0".to_vec();
    out.extend(flags);
    out.extend(crc32(&flags));
    let blocks = [(&data[..calls.start], false), (&data[calls.clone()], true), (&data[calls.end..], false)];
    let mut index = vec![0];
    let blocks: Vec<_> = blocks.into_iter().filter(|(bytes, _)| !bytes.is_empty()).collect();
    index.extend(vli(blocks.len()));
    for (bytes, filter) in blocks {
        let (block, unpadded) = xz_block(bytes, filter);
        out.extend(block);
        index.extend(vli(unpadded));
        index.extend(vli(bytes.len()));
    }
    index.resize(index.len().next_multiple_of(4), 0);
    index.extend(crc32(&index.clone()));
    let mut footer = ((index.len() / 4 - 1) as u32).to_le_bytes().to_vec();
    footer.extend(flags);
    out.extend(index);
    out.extend(crc32(&footer));
    out.extend(footer);
    out.extend(b"YZ");
    out
}

/// One block and its size without padding.
fn xz_block(bytes: &[u8], filter: bool) -> (Vec<u8>, usize) {
    // 12 bytes: size / 4 - 1, number of filters - 1, x86 (no properties), LZMA2 (dictionary of 8 MiB), padding, CRC.
    let mut block = if filter { vec![2, 1, 0x04, 0, 0x21, 1, 22, 0] } else { vec![2, 0, 0x21, 1, 22, 0, 0, 0] };
    block.extend(crc32(&block.clone()));
    let filtered = if filter { x86_filter(bytes) } else { bytes.to_vec() };
    for (i, chunk) in filtered.chunks(1 << 16).enumerate() {
        block.push(if i == 0 { 1 } else { 2 });
        block.extend(((chunk.len() - 1) as u16).to_be_bytes());
        block.extend(chunk);
    }
    block.push(0);
    let unpadded = block.len() + 4;
    block.resize(block.len().next_multiple_of(4), 0);
    block.extend(crc32(bytes));
    (block, unpadded)
}

fn vli(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}
