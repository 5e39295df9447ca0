//! Kernel images: every container, every arrangement of kallsyms, and everything that can be broken.
//!
//! The real image is taken from `LPBUILD_TEST_KERNEL=path/to/vmlinuz`; without it that one test says so and passes.

#[path = "kernel_image/compress.rs"]
mod compress;
#[path = "kernel_image/synthetic.rs"]
mod synthetic;

use std::time::Instant;

use lpbuild::error::Error;
use lpbuild::kernel::KernelImage;
use synthetic::{BSS, BUILD_ID, Layout, NOTES, Options, RELEASE, RODATA, TEXT, bzimage, vmlinux};

fn code(result: Result<KernelImage, Error>) -> &'static str {
    match result {
        Ok(_) => "accepted",
        Err(e) => {
            assert_eq!(e.exit_code(), 1, "{e}");
            e.problems[0].code.id
        }
    }
}

fn read(data: Vec<u8>) -> KernelImage {
    KernelImage::from_bytes("test", data).unwrap()
}

fn check_symbols(kernel: &KernelImage, layout: Layout, extra: u64) {
    let expected = synthetic::symbols(layout, extra);
    assert_eq!(kernel.kallsyms().len(), expected.len());
    for (symbol, (addr, kind, name)) in kernel.kallsyms().iter().zip(&expected) {
        assert_eq!((symbol.addr, symbol.kind, &*symbol.name), (*addr, *kind, name.as_str()));
    }
}

#[test]
fn identity_sections_and_bytes() {
    let kernel = read(vmlinux(Options::default()));
    assert_eq!(kernel.build_id(), BUILD_ID);
    assert_eq!(kernel.release(), RELEASE);
    let names: Vec<&str> = kernel.sections().iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, [".text", ".rodata", ".notes", ".bss"]);
    assert_eq!(kernel.read(TEXT + 3, 4), Some(&[3, 4, 5, 6][..]));
    assert_eq!(kernel.read(TEXT + 0x3fff, 1).map(<[u8]>::len), Some(1));
    assert_eq!(kernel.read(TEXT + 0x3fff, 2), None, "past the end of the section");
    assert_eq!(kernel.read(TEXT - 1, 2), None);
    assert_eq!(kernel.read(BSS, 1), None, "no bytes in the file");
    assert_eq!(kernel.read(u64::MAX, usize::MAX), None);
    assert_eq!(kernel.section_at(BSS + 0xfff).map(|s| s.name.as_str()), Some(".bss"));
    assert!(kernel.section_at(BSS + 0x1000).is_none());
    assert!(kernel.section_at(TEXT).is_some_and(|s| s.is_code() && s.range() == (TEXT..TEXT + 0x4000)));
    assert_eq!(kernel.section_at(NOTES).map(|s| s.notes), Some(true));
    assert!(kernel.read(RODATA, 13).is_some_and(|b| b == b"Linux version"));
}

#[test]
fn kallsyms_in_every_arrangement() {
    for layout in [Layout::OffsetsFirst, Layout::OffsetsLast, Layout::Unsigned] {
        for extra in [255, 256, 257, 600] {
            let kernel = read(vmlinux(Options { layout, extra, ..Options::default() }));
            check_symbols(&kernel, layout, extra);
        }
    }
    let kernel = read(vmlinux(Options::default()));
    let twins: Vec<_> = kernel.kallsyms().named("twin").map(|s| (s.kind, kernel.kallsyms().sympos(s))).collect();
    assert_eq!(twins, [(b't', Some(1)), (b'd', Some(2))]);
    assert!(kernel.kallsyms().named("cpu_info").all(|s| s.is_percpu() && s.addr == 0x1b340));
    assert_eq!(kernel.kallsyms().size_guess(TEXT), Some(16));
}

#[test]
fn more_symbols_than_any_distribution_has() {
    let start = Instant::now();
    let kernel = read(vmlinux(Options { layout: Layout::OffsetsLast, extra: 400_000, ..Options::default() }));
    check_symbols(&kernel, Layout::OffsetsLast, 400_000);
    println!("400,000 symbols in {:?}", start.elapsed());
}

#[test]
fn without_a_section_table() {
    let kernel = read(vmlinux(Options { section_table: false, ..Options::default() }));
    check_symbols(&kernel, Layout::OffsetsFirst, 600);
    assert_eq!(kernel.build_id(), BUILD_ID);
    assert_eq!(kernel.read(TEXT + 3, 2), Some(&[3, 4][..]));
    assert!(kernel.section_at(TEXT).is_some_and(|s| s.is_code()));
    assert!(kernel.section_at(BSS).is_some_and(|s| s.data.is_empty()));
}

/// A vmlinux whose `.text` has calls, so that a missing x86 filter shows.
fn with_calls() -> Vec<u8> {
    let mut elf = vmlinux(Options::default());
    let text = elf.windows(8).position(|w| *w == [0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    compress::put_calls(&mut elf[text..text + 0x4000]);
    elf
}

#[test]
fn every_compression() {
    let elf = with_calls();
    let plain = read(elf.clone());
    for (format, payload) in compress::all(&elf) {
        let kernel = KernelImage::from_bytes(format, bzimage(&payload, RELEASE)).unwrap();
        assert_eq!(kernel.build_id(), BUILD_ID, "{format}");
        for (a, b) in kernel.sections().iter().zip(plain.sections()) {
            assert!(a.data == b.data, "{format}: {} differs", a.name);
        }
        check_symbols(&kernel, Layout::OffsetsFirst, 600);
    }
}

#[test]
fn truncated_and_altered_payloads() {
    let elf = vmlinux(Options { extra: 64, ..Options::default() });
    for (format, payload) in compress::all(&elf) {
        for keep in (0..payload.len()).step_by(payload.len() / 40 + 1) {
            let mut cut = payload[..keep].to_vec();
            let found = code(KernelImage::from_bytes(format, bzimage(&cut, RELEASE)));
            assert!(found != "accepted", "{format} cut to {keep}");
            // The same with a size field at the end, so that the decoder itself sees the cut.
            cut.extend((elf.len() as u32).to_le_bytes());
            if keep > 8 {
                let found = code(KernelImage::from_bytes(format, bzimage(&cut, RELEASE)));
                assert_eq!(found, "LP1204", "{format} cut to {keep}, size appended");
            }
        }
        for at in (0..payload.len()).step_by(payload.len() / 200 + 1) {
            let mut altered = payload.clone();
            altered[at] ^= 0x41;
            // Not every format has a checksum: what matters is that nothing panics and nothing grows.
            let _ = KernelImage::from_bytes(format, bzimage(&altered, RELEASE));
        }
        let mut wrong_size = payload.clone();
        let at = wrong_size.len() - 4;
        for size in [0, 1, elf.len() as u32 - 1, elf.len() as u32 + 1, u32::MAX] {
            wrong_size[at..].copy_from_slice(&size.to_le_bytes());
            let found = code(KernelImage::from_bytes(format, bzimage(&wrong_size, RELEASE)));
            assert_eq!(found, "LP1204", "{format}, {size} bytes recorded");
        }
    }
}

#[test]
fn a_bomb_is_refused() {
    let bomb = compress::gzip(&vec![0; 64 << 20]);
    let mut bomb = bomb;
    let at = bomb.len() - 4;
    bomb[at..].copy_from_slice(&4096u32.to_le_bytes());
    assert_eq!(code(KernelImage::from_bytes("bomb", bzimage(&bomb, RELEASE))), "LP1204");
}

#[test]
fn refusals() {
    let image = |o: Options| code(KernelImage::from_bytes("test", vmlinux(o)));
    assert_eq!(image(Options { build_id: false, ..Options::default() }), "LP1206");
    assert_eq!(image(Options { banner: false, ..Options::default() }), "LP1207");
    assert_eq!(image(Options { layout: Layout::None, ..Options::default() }), "LP1208");
    assert_eq!(code(KernelImage::from_bytes("test", Vec::new())), "LP1201");
    assert_eq!(code(KernelImage::from_bytes("test", vec![0x7f; 4096])), "LP1201");
    assert_eq!(code(KernelImage::open("/nonexistent/vmlinuz".as_ref())), "LP1004");

    let mut other_machine = vmlinux(Options::default());
    other_machine[18] = 183;
    assert_eq!(code(KernelImage::from_bytes("test", other_machine)), "LP1201");
    let mut relocatable = vmlinux(Options::default());
    relocatable[16] = 1;
    assert_eq!(code(KernelImage::from_bytes("test", relocatable)), "LP1201");
    let mut narrow = vmlinux(Options::default());
    narrow[4] = 1;
    assert_eq!(code(KernelImage::from_bytes("test", narrow)), "LP1201");
    let mut cut = vmlinux(Options::default());
    cut.truncate(cut.len() / 2);
    assert_eq!(code(KernelImage::from_bytes("test", cut)), "LP1205");

    let payload = compress::gzip(&vmlinux(Options::default()));
    assert_eq!(code(KernelImage::from_bytes("test", bzimage(&payload, "6.1.0-other"))), "LP1207");
    assert_eq!(code(KernelImage::from_bytes("test", bzimage(b"???????????", RELEASE))), "LP1203");
    assert_eq!(code(KernelImage::from_bytes("test", bzimage(b"", RELEASE))), "LP1202");
    let mut old = bzimage(&payload, RELEASE);
    old[0x206] = 0x07;
    assert_eq!(code(KernelImage::from_bytes("test", old)), "LP1202");
    let mut far = bzimage(&payload, RELEASE);
    far[0x24b] = 0xff;
    assert_eq!(code(KernelImage::from_bytes("test", far)), "LP1202");
    let mut short = bzimage(&payload, RELEASE);
    short.truncate(0x230);
    assert_eq!(code(KernelImage::from_bytes("test", short)), "LP1202");
}

#[test]
fn kallsyms_that_contradict_themselves() {
    let elf = vmlinux(Options::default());
    // num_syms: 600 extra symbols and nine others.
    let count = synthetic::symbols(Layout::OffsetsFirst, 600).len() as u64;
    let at = elf.windows(8).position(|w| w == count.to_le_bytes()).unwrap();
    let mut wrong_count = elf.clone();
    wrong_count[at] ^= 0x10;
    assert_eq!(code(KernelImage::from_bytes("test", wrong_count)), "LP1209");
    let mut wrong_base = elf.clone();
    wrong_base[at - 1] = 0;
    assert_eq!(code(KernelImage::from_bytes("test", wrong_base)), "LP1209");
    let mut wrong_order = elf.clone();
    wrong_order[at - 40] ^= 0xff;
    assert_eq!(code(KernelImage::from_bytes("test", wrong_order)), "LP1209");
    let mut wrong_name = elf;
    wrong_name[at + 8] = 0;
    assert_eq!(code(KernelImage::from_bytes("test", wrong_name)), "LP1209");
}

#[test]
fn nothing_panics() {
    let elf = vmlinux(Options { extra: 300, ..Options::default() });
    for keep in (0..elf.len()).step_by(61) {
        let _ = KernelImage::from_bytes("cut", &elf[..keep]);
    }
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for round in 0..3000 {
        let mut altered = elf.clone();
        for _ in 0..1 + round % 8 {
            // Half of the flips hit the header and the tables around it.
            let limit = if random() % 2 == 0 { 64 + 56 * 4 } else { altered.len() };
            let at = random() % limit;
            altered[at] = random() as u8;
        }
        let _ = KernelImage::from_bytes("altered", altered);
    }
}

#[test]
fn the_real_image() {
    let Ok(path) = std::env::var("LPBUILD_TEST_KERNEL") else {
        println!("skipped: LPBUILD_TEST_KERNEL does not name a vmlinuz");
        return;
    };
    let start = Instant::now();
    let kernel = KernelImage::open(path.as_ref()).unwrap();
    let build_id = lpbuild::hash::to_hex(kernel.build_id());
    let symbols = kernel.kallsyms();
    println!("{} {build_id}: {} symbols in {:?}", kernel.release(), symbols.len(), start.elapsed());
    assert_eq!(kernel.build_id().len(), 20);
    let one = |name: &str| {
        let mut found = symbols.named(name);
        assert_eq!(found.len(), 1, "{name}");
        found.next().unwrap().addr
    };
    // The tables agree with what other parts of the image say.
    assert!(kernel.read(one("linux_banner"), 14).is_some_and(|b| b == b"Linux version "));
    let notes = kernel.sections().iter().find(|s| s.name == ".notes").unwrap();
    assert_eq!((one("__start_notes"), one("__stop_notes")), (notes.addr, notes.addr + notes.data.len() as u64));
    let text = kernel.sections().iter().find(|s| s.name == ".text").unwrap();
    assert_eq!((one("_text"), one("_etext")), (text.addr, text.addr + text.size));
    assert!(symbols.named("cpu_number").all(|s| s.is_percpu()));
    for name in ["_printk", "schedule", "stop_machine"] {
        let addr = one(name);
        let guess = symbols.size_guess(addr).unwrap();
        assert!(kernel.section_at(addr).is_some_and(|s| s.is_code()) && (8..0x4000).contains(&guess), "{name}");
        assert_eq!(symbols.containing(addr + 5).map(|(s, d)| (s.addr, d)), Some((addr, 5)));
    }
}
