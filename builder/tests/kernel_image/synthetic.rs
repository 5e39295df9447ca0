//! A small kernel made by hand: ELF, notes, banner and kallsyms tables in the arrangements of 6.1 and 6.4.

/// Link-time address of the synthetic `.text`.
pub const TEXT: u64 = 0xffff_ffff_8100_0000;
pub const RODATA: u64 = 0xffff_ffff_8200_0000;
pub const NOTES: u64 = 0xffff_ffff_8230_0000;
pub const BSS: u64 = 0xffff_ffff_8240_0000;
pub const RELEASE: &str = "6.1.0-test-amd64";
pub const BUILD_ID: [u8; 20] = *b"\x01\x23\x45\x67\x89\xab\xcd\xef0123456789ab";

/// Order of the kallsyms tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Linux 6.1 to 6.3.
    OffsetsFirst,
    /// Since 6.4.
    OffsetsLast,
    /// Since 6.15: as 6.4, with per-CPU symbols inside the image.
    Unsigned,
    /// Built without CONFIG_KALLSYMS.
    None,
}

pub type Symbol = (u64, u8, String);

/// Symbols that show every form: per-CPU, duplicates, a name longer than 127 bytes, and `extra` plain ones.
pub fn symbols(layout: Layout, extra: u64) -> Vec<Symbol> {
    let mut out: Vec<Symbol> = Vec::new();
    if layout != Layout::Unsigned {
        out.push((0, b'A', "fixed_percpu_data".into()));
        out.push((0x1b340, b'A', "cpu_info".into()));
    }
    out.push((TEXT, b'T', "_text".into()));
    out.push((TEXT, b'T', "startup_64".into()));
    for i in 0..extra {
        out.push((TEXT + 0x10 + i * 16, b't', format!("function_number_{i}")));
    }
    let next = TEXT + 0x10 + extra * 16;
    out.push((next, b't', "twin".into()));
    out.push((next + 8, b't', format!("long_{}", "name_".repeat(40))));
    out.push((next + 16, b'd', "twin".into()));
    out.push((RODATA, b'R', "linux_banner".into()));
    out.push((BSS, b'B', "_end".into()));
    out
}

fn align(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

fn token(i: u8) -> String {
    match i {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'.' => char::from(i).to_string(),
        // What replaces frequent pairs in a real table.
        0 => "function_".into(),
        1 => "number_".into(),
        _ => format!("~{i:02x}"),
    }
}

/// The tables as scripts/kallsyms.c writes them.
pub fn kallsyms(layout: Layout, symbols: &[Symbol]) -> Vec<u8> {
    let mut out = Vec::new();
    if layout == Layout::None {
        return out;
    }
    let mut names = Vec::new();
    let mut markers: Vec<u32> = Vec::new();
    for (i, (_, kind, name)) in symbols.iter().enumerate() {
        if i % 256 == 0 {
            markers.push(names.len() as u32);
        }
        let text = format!("{}{name}", char::from(*kind)).replace("function_", "\0").replace("number_", "\x01");
        match text.len() {
            n @ ..0x80 => names.push(n as u8),
            n => names.extend([(n & 0x7f) as u8 | 0x80, (n >> 7) as u8]),
        }
        names.extend(text.bytes());
    }
    let put_offsets = |out: &mut Vec<u8>| {
        for (addr, _, _) in symbols {
            let distance = addr.wrapping_sub(TEXT) as i64;
            let offset = match layout {
                Layout::Unsigned => distance,
                _ if *addr < TEXT => *addr as i64,
                _ => -1 - distance,
            };
            out.extend((offset as i32).to_le_bytes());
        }
        align(out);
        out.extend(TEXT.to_le_bytes());
    };
    let put_seqs = |out: &mut Vec<u8>| {
        out.extend((0..symbols.len() as u32).flat_map(|i| i.to_be_bytes().into_iter().skip(1)));
        align(out);
    };
    if layout == Layout::OffsetsFirst {
        put_offsets(&mut out);
    }
    out.extend((symbols.len() as u64).to_le_bytes());
    out.extend(&names);
    align(&mut out);
    out.extend(markers.iter().flat_map(|m| m.to_le_bytes()));
    align(&mut out);
    if layout == Layout::OffsetsFirst {
        put_seqs(&mut out);
    }
    let (mut table, mut index) = (Vec::new(), Vec::new());
    for i in 0..=255 {
        index.extend((table.len() as u16).to_le_bytes());
        table.extend(token(i).bytes());
        table.push(0);
    }
    align(&mut table);
    out.extend(table);
    out.extend(index);
    if layout != Layout::OffsetsFirst {
        put_offsets(&mut out);
        put_seqs(&mut out);
    }
    out
}

fn note(owner: &[u8], kind: u32, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for n in [owner.len() as u32, text.len() as u32, kind] {
        out.extend(n.to_le_bytes());
    }
    for part in [owner, text] {
        out.extend(part);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// What can be wrong with a synthetic kernel.
#[derive(Clone, Copy)]
pub struct Options {
    pub layout: Layout,
    pub extra: u64,
    pub section_table: bool,
    pub build_id: bool,
    pub banner: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { layout: Layout::OffsetsFirst, extra: 600, section_table: true, build_id: true, banner: true }
    }
}

/// A vmlinux.
pub fn vmlinux(o: Options) -> Vec<u8> {
    let text: Vec<u8> = (0..0x4000u32).map(|i| (i % 251) as u8).collect();
    let mut rodata = Vec::new();
    if o.banner {
        rodata.extend(format!("Linux version {RELEASE} (builder@host) (gcc) #1 SMP\n\0").bytes());
    }
    // Digits that are not the token table, and the format string that is not the banner.
    rodata.extend(b"Linux version %s (%s)\0\x000\x001\x002\x003\x004\x005\x006\x007\x008\x009\0");
    align(&mut rodata);
    rodata.extend(kallsyms(o.layout, &symbols(o.layout, o.extra)));
    let mut notes = note(b"Xen\0", 6, b"linux\0");
    notes.extend(note(b"Xen\0", 10, b"!writable_page_tables|pae_pgdir_above_4gb"));
    if o.build_id {
        notes.extend(note(b"GNU\0", 3, &BUILD_ID));
    }
    notes.extend(note(b"Linux\0", 0x101, RELEASE.as_bytes()));

    /// Name, type, flags, address, bytes, size in memory.
    type Section<'d> = (u32, u32, u64, u64, &'d [u8], u64);
    let names = b"\0.text\0.rodata\0.notes\0.bss\0.shstrtab\0";
    let sections: [Section<'_>; 4] = [
        (1, 1, 6, TEXT, &text, text.len() as u64),
        (7, 1, 2, RODATA, &rodata, rodata.len() as u64),
        (15, 7, 2, NOTES, &notes, notes.len() as u64),
        (22, 8, 3, BSS, &[], 0x1000),
    ];
    let mut file = vec![0u8; 64 + 56 * sections.len()];
    let mut placed = Vec::new();
    for (_, _, _, _, bytes, _) in &sections {
        align(&mut file);
        placed.push(file.len() as u64);
        file.extend(*bytes);
    }
    for (i, ((_, kind, flags, addr, bytes, size), at)) in sections.iter().zip(&placed).enumerate() {
        let mut ph = Vec::new();
        ph.extend(if *kind == 7 { 4u32 } else { 1 }.to_le_bytes());
        ph.extend(if flags & 4 != 0 { 5u32 } else { 6 }.to_le_bytes());
        for v in [*at, *addr, *addr, bytes.len() as u64, *size, 8] {
            ph.extend(v.to_le_bytes());
        }
        file[64 + 56 * i..][..56].copy_from_slice(&ph);
    }
    let names_at = file.len() as u64;
    file.extend(names);
    align(&mut file);
    let table = file.len() as u64;
    if o.section_table {
        file.extend([0u8; 64]);
        let shstrtab = (27, 3, 0, 0, names.as_slice(), names.len() as u64);
        for ((name, kind, flags, addr, _, size), at) in
            sections.iter().chain([&shstrtab]).zip(placed.iter().chain([&names_at]))
        {
            file.extend(name.to_le_bytes());
            file.extend(kind.to_le_bytes());
            for v in [*flags, *addr, *at, *size, 0, 8, 0] {
                file.extend(v.to_le_bytes());
            }
        }
    }
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for v in [TEXT, 64, if o.section_table { table } else { 0 }] {
        header.extend(v.to_le_bytes());
    }
    header.extend(0u32.to_le_bytes());
    let (count, last) = if o.section_table { (6, 5) } else { (0, 0) };
    for v in [64u16, 56, sections.len() as u16, 64, count, last] {
        header.extend(v.to_le_bytes());
    }
    file[..64].copy_from_slice(&header);
    // As in real images, a relocation list follows the ELF.
    file.extend([0xffu8; 64]);
    file
}

/// A bzImage around a finished payload.
pub fn bzimage(payload: &[u8], release: &str) -> Vec<u8> {
    const SECTORS: u8 = 2;
    const STUB: usize = 0x40;
    let mut out = vec![0u8; (usize::from(SECTORS) + 1) * 512 + STUB];
    out[0x1f1] = SECTORS;
    out[0x202..0x206].copy_from_slice(b"HdrS");
    out[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    out[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    let version = format!("{release} (builder@host) #1 SMP\0");
    out[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
    out[0x248..0x24c].copy_from_slice(&(STUB as u32).to_le_bytes());
    out[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend(payload);
    out.extend([0u8; 100]);
    out
}
