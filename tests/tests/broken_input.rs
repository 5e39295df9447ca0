//! Damaged input: no panic, no absurd allocation, and the answer is *broken* (LP10xx to LP12xx), a refusal, or a verdict
//! that a valid file could have had as well.
//!
//! Objects are cut at every boundary a header names, every header field is set to extreme values, and bytes are flipped
//! at random places (fixed seeds). The same for kernel images and manifests.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use lpbuild::error::Error;
use lpbuild::holder::HolderName;
use lpbuild::kernel::KernelImage;
use lpbuild::pipeline::{self};
use lpbuild::plan::Source;
use lpbuild::plan::manifest::Manifest;
use support::compile::{Recipe, Variant, compile, sources};
use support::image::{Names, link};

/// Remembers the largest single allocation.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);
/// The inputs have a few kilobytes; nothing they say may make anybody ask for more than this at once.
const ABSURD: usize = 64 << 20;

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

struct Pair {
    name: String,
    old: Vec<u8>,
    new: Vec<u8>,
}

const CASES: &[&str] = &[
    "warn",
    "jump-label",
    "alternatives-12",
    "exception-table",
    "static-call",
    "orc",
    "altinstr-aux",
    "cold",
    "new-data",
    "dyndbg",
    "switch-table",
    "two-objects",
    "wide-string",
    "short-jump-before",
    "line-number",
    "line-in-a-string",
];

fn pairs() -> &'static [Pair] {
    static PAIRS: OnceLock<Vec<Pair>> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let mut folders: Vec<PathBuf> = std::fs::read_dir(&corpus).unwrap().map(|e| e.unwrap().path()).collect();
        folders.sort();
        let work = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        for case in CASES {
            let dir = folders.iter().find(|f| f.to_string_lossy().ends_with(&format!("-{case}")));
            let dir = dir.unwrap_or_else(|| panic!("no case {case}"));
            let flags = if *case == "switch-table" {
                vec!["-fjump-tables".into(), "-mindirect-branch=keep".into()]
            } else if case.starts_with("line-") {
                vec!["-g".into()]
            } else {
                vec![]
            };
            let recipe = Recipe { variant: Variant::Plain, fentry: true, flags };
            let source = sources(dir).remove(0);
            let object = |define: &str| compile(&source, &recipe, define, &work.path().join("out.o"));
            out.push(Pair { name: (*case).to_owned(), old: object(""), new: object("NEW") });
        }
        out
    })
}

fn run(old: &[u8], new: &[u8], kernel: Option<&KernelImage>) -> Result<(), Error> {
    let source = Source {
        name: "case.o".into(),
        old_path: "old.o".into(),
        new_path: "new.o".into(),
        old: old.to_vec(),
        new: new.to_vec(),
        holder: HolderName::Vmlinux,
    };
    let options = support::options();
    let mut analysis = pipeline::analyse(&[source], &options)?;
    lpbuild::error::refuse(std::mem::take(&mut analysis.refused))?;
    if !analysis.set.items.is_empty() {
        let output = pipeline::produce(&mut analysis, kernel, &options)?;
        let text = output.manifest.to_toml()?;
        Manifest::parse(&text, "manifest.toml")?;
    }
    Ok(())
}

/// What must hold of any answer.
fn judge(what: &str, f: impl FnOnce() -> Result<(), Error>) {
    let answer = catch_unwind(AssertUnwindSafe(f));
    let Ok(answer) = answer else { panic!("{what}: a panic") };
    if let Err(e) = answer {
        assert!(!e.problems.is_empty(), "{what}: an error without a problem");
        for p in &e.problems {
            assert_ne!(p.code.id, "LP1000", "{what}: internal error: {p}");
        }
        let broken = e.exit_code() == 1;
        let ids = || e.problems.iter().map(|p| p.code.id).collect::<Vec<_>>();
        assert!(
            !broken || ids().iter().any(|i| ["LP10", "LP11", "LP12"].iter().any(|p| i.starts_with(p))),
            "{what}: {:?}",
            ids()
        );
    }
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < ABSURD, "{what}: {largest} bytes were asked for at once");
}

fn word(bytes: &[u8], at: usize, len: usize) -> usize {
    bytes.get(at..at + len).map_or(0, |b| b.iter().rev().fold(0usize, |v, b| v << 8 | usize::from(*b)))
}

/// Start of the section headers, and of each header with its section's offset and size.
fn headers(bytes: &[u8]) -> Vec<(usize, usize, usize)> {
    let (table, count) = (word(bytes, 0x28, 8), word(bytes, 0x3c, 2));
    (0..count).map(|i| table + i * 64).map(|h| (h, word(bytes, h + 0x18, 8), word(bytes, h + 0x20, 8))).collect()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[test]
fn objects_cut_anywhere_are_broken() {
    for pair in pairs() {
        let mut cuts: Vec<usize> = (0..64).collect();
        for (header, offset, size) in headers(&pair.new) {
            cuts.extend((0..64).step_by(4).map(|f| header + f));
            cuts.extend([offset, offset + size, (offset + size).saturating_sub(1), offset + 1]);
        }
        cuts.retain(|c| *c < pair.new.len());
        cuts.sort();
        cuts.dedup();
        for cut in cuts {
            for (old, new, side) in [(&pair.old[..], &pair.new[..cut], "new"), (&pair.new[..cut], &pair.old[..], "old")]
            {
                let what = format!("{}: the {side} object cut to {cut}", pair.name);
                judge(&what, || run(old, new, None));
                // The section headers are at the end of the file: without them nothing can be known.
                let answer = run(old, new, None);
                assert_eq!(answer.map_err(|e| e.exit_code()), Err(1), "{what}");
            }
        }
    }
}

#[test]
fn extreme_header_fields_do_no_harm() {
    let extremes = [0u64, 1, 7, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX, u64::MAX - 7];
    for pair in pairs() {
        let mut fields: Vec<(usize, usize)> =
            vec![(0x10, 2), (0x12, 2), (0x28, 8), (0x34, 2), (0x3a, 2), (0x3c, 2), (0x3e, 2)];
        for (header, offset, size) in headers(&pair.new) {
            let widths = [(0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 8), (56, 8)];
            fields.extend(widths.map(|(at, w)| (header + at, w)));
            match word(&pair.new, header + 4, 4) {
                2 => fields.extend((0..size / 24).flat_map(|i| {
                    let s = offset + i * 24;
                    [(s, 4), (s + 4, 1), (s + 6, 2), (s + 8, 8), (s + 16, 8)]
                })),
                4 => fields.extend((0..size / 24).flat_map(|i| {
                    let r = offset + i * 24;
                    [(r, 8), (r + 8, 4), (r + 12, 4), (r + 16, 8)]
                })),
                _ => {}
            }
        }
        // All headers, and of the many symbols and relocations every third.
        for (n, (at, width)) in fields.into_iter().enumerate().filter(|(n, _)| *n < 100 || n % 3 == 0) {
            let value = extremes[n % extremes.len()];
            for value in [value, extremes[(n + 4) % extremes.len()]] {
                let mut new = pair.new.clone();
                new[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                let what = format!("{}: {value:#x} at {at:#x}", pair.name);
                judge(&what, || run(&pair.old, &new, None));
                judge(&what, || run(&new, &pair.old, None));
            }
        }
    }
}

#[test]
fn flipped_bytes_do_no_harm() {
    let mut random = Random(0x1b0b_5eed_0000_0001);
    for pair in pairs() {
        for round in 0..600 {
            let (mut old, mut new) = (pair.old.clone(), pair.new.clone());
            for _ in 0..=round % 4 {
                let side = if random.below(3) == 0 { &mut old } else { &mut new };
                let at = random.below(side.len());
                side[at] ^= 1 << random.below(8);
            }
            judge(&format!("{}: round {round}", pair.name), || run(&old, &new, None));
        }
    }
}

#[test]
fn damaged_kernels_do_no_harm() {
    let pair = &pairs()[0];
    let work = tempfile::tempdir().unwrap();
    let image = link(std::slice::from_ref(&pair.old), std::slice::from_ref(&pair.new), &Names::default(), work.path());
    let whole = KernelImage::from_bytes("kernel", image.file.clone()).unwrap();
    run(&pair.old, &pair.new, Some(&whole)).unwrap();
    let with = |file: Vec<u8>| -> Result<(), Error> {
        let kernel = KernelImage::from_bytes("kernel", file)?;
        run(&pair.old, &pair.new, Some(&kernel))
    };
    let mut cuts: Vec<usize> = (0..64).collect();
    for (header, offset, size) in headers(&image.file) {
        cuts.extend([
            header,
            header + 24,
            header + 63,
            offset,
            offset + 1,
            offset + size / 2,
            (offset + size).saturating_sub(1),
        ]);
    }
    for cut in cuts.into_iter().filter(|c| *c < image.file.len()) {
        judge(&format!("kernel cut to {cut}"), || with(image.file[..cut].to_vec()));
    }
    let mut random = Random(0x1b0b_5eed_0000_0002);
    let content: Vec<usize> = (0..image.file.len()).filter(|i| image.file[*i] != 0).collect();
    for round in 0..600 {
        let mut file = image.file.clone();
        for _ in 0..=round % 3 {
            let at = content[random.below(content.len())];
            file[at] ^= 1 << random.below(8);
        }
        judge(&format!("kernel, round {round}"), || with(file));
    }
}

#[test]
fn damaged_manifests_are_broken_or_valid() {
    let pair = &pairs()[0];
    let source = Source {
        name: "case.o".into(),
        old_path: "old.o".into(),
        new_path: "new.o".into(),
        old: pair.old.clone(),
        new: pair.new.clone(),
        holder: HolderName::Vmlinux,
    };
    let options = support::options();
    let mut analysis = pipeline::analyse(&[source], &options).unwrap();
    let text = pipeline::produce(&mut analysis, None, &options).unwrap().manifest.to_toml().unwrap();
    for cut in 0..text.len() {
        judge(&format!("manifest cut to {cut}"), || Manifest::parse(&text[..cut], "m").map(|_| ()));
    }
    let mut random = Random(0x1b0b_5eed_0000_0003);
    for round in 0..2000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..=round % 3 {
            let at = random.below(bytes.len());
            bytes[at] = match random.below(3) {
                0 => bytes[at] ^ 1 << random.below(7),
                1 => b"0-9.\"[]=\n\0\x7f"[random.below(11)],
                _ => b'9',
            };
        }
        let Ok(text) = String::from_utf8(bytes) else { continue };
        judge(&format!("manifest, round {round}"), || Manifest::parse(&text, "m").map(|_| ()));
    }
}
