//! Modules as images: small ones linked as kbuild does, and everything that can be wrong with their files.

mod support;

use std::path::Path;
use std::process::Command;

use lpbuild::bind;
use lpbuild::error::Error;
use lpbuild::holder::Placement;
use lpbuild::ingest;
use lpbuild::kernel::KernelImage;
use lpbuild::kernel::module::{self, Imported, ModuleArea};
use lpbuild::symbolize::Object;
use tempfile::TempDir;

const INFO: &str = r#"
#define INFO(n, text) static const char info##n[] __attribute__((section(".modinfo"), used, aligned(1))) = text
INFO(1, "license=GPL");
INFO(2, "vermagic=9.9.9-test SMP mod_unload ");
INFO(3, "name=two_parts");
"#;

/// Both parts have a `count`, a `step` and a `table`, as only files of their own may.
const FIRST: &str = r#"
extern int imported(int), of_other(int);
extern int weak_one(int) __attribute__((weak));
static int count;
static const int table[] = { 1, 2, 3, 4 };
struct entry { int code, target; long key; };
int key_a, key_b;
#ifndef KEY
#define KEY key_a
#endif
static int __attribute__((noinline)) step(int x) { count += x; return count * 3; }
int __attribute__((noinline)) first(int x) {
    asm goto("1: .byte 0x0f,0x1f,0x44,0,0\n .pushsection __jump_table,\"aw\"\n .balign 8\n .long 1b - ., %l[on] - .\n"
             " .quad %c0 - .\n .popsection" : : "i"(&KEY) : : on);
    return step(x) + table[x & 3] + (weak_one ? weak_one(x) : 0);
on:
    return imported(x) + of_other(x);
}
static int __attribute__((section(".init.text"), used)) begin(void) { return first(1); }
"#;

const SECOND: &str = r#"
static int count = 5;
static const int table[] = { 5, 6, 7, 8 };
static int __attribute__((noinline)) step(int x) { count -= x; return count * 5; }
#ifndef TEXT
#define TEXT "a text that is printed"
#endif
extern int printed(const char *, ...);
int of_other(int x) { printed(TEXT); return step(x) - table[x & 3]; }
static int __attribute__((section(".exit.text"), used)) leave(void) { return step(2); }
"#;

/// The module and its two objects.
struct Made {
    dir: TempDir,
}

impl Made {
    fn with(flags: &[&str], link: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        for (name, text) in [("info", INFO), ("first", FIRST), ("second", SECOND)] {
            std::fs::write(dir.path().join(format!("{name}.c")), text).unwrap();
            support::compile(dir.path(), &format!("{name}.c"), &format!("{name}.o"), &flags);
        }
        let mut ld = Command::new("ld");
        ld.current_dir(dir.path()).args(["-r", "-o", "two_parts.ko", "first.o", "second.o", "info.o"]);
        support::run(ld.args(link));
        Self { dir }
    }

    fn usual() -> Self {
        Self::with(&[], &["--build-id=sha1"])
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path("two_parts.ko")).unwrap()
    }

    fn object(&self, name: &str) -> Object {
        let data = std::fs::read(self.path(name)).unwrap();
        Object::new(ingest::read(name, &data).unwrap()).unwrap()
    }
}

fn resolve(name: &str) -> Option<Imported> {
    match name {
        "imported" => Some((0xffff_ffff_8100_0100, b'T')),
        "printed" => Some((0xffff_ffff_8100_0200, b'T')),
        _ => None,
    }
}

fn link(data: &[u8]) -> Result<KernelImage, Error> {
    module::lay_out("two_parts.ko", data, &mut ModuleArea::default())?.link(&resolve)
}

/// What is wrong with each function of an object, by the image.
fn wrong(object: &Object, image: &KernelImage) -> Vec<String> {
    let placement = bind::place(object, image);
    let code = object.atoms.iter().filter(|a| a.is_code());
    code.filter_map(|a| placement.check(a.id).err().map(|(code, why)| format!("{} {}: {why}", a.name, code.id)))
        .collect()
}

fn place_of(placement: &Placement, object: &Object, name: &str) -> Option<u64> {
    placement.address(object.named(name)?)
}

#[test]
fn each_object_is_found_in_the_module_it_was_linked_into() {
    let made = Made::usual();
    let image = link(&made.bytes()).unwrap();
    let facts = image.module().unwrap();
    assert_eq!((facts.name.as_str(), image.release()), ("two_parts", "9.9.9-test"));
    assert_eq!(image.build_id().len(), 20);
    let mut ends: Vec<_> = image.sections().iter().map(|s| (s.addr, s.addr + s.size)).collect();
    ends.sort_unstable();
    for pair in ends.windows(2) {
        assert!(pair[0].0 % 0x1000 == 0 && pair[0].1 + 0x1000 <= pair[1].0, "an empty page lies between sections");
    }
    let absent = |name: &str| image.section_named(name).is_none();
    assert!(absent(".modinfo") && !absent(".init.text") && facts.init.len() == 1);
    let (first, second) = (made.object("first.o"), made.object("second.o"));
    assert_eq!(wrong(&first, &image), [""; 0]);
    assert_eq!(wrong(&second, &image), [""; 0], "code of .exit.text is in a module");
    let places: Vec<_> = [&first, &second].map(|o| bind::place(o, &image)).into();
    for name in ["count", "step", "table"] {
        let both = [place_of(&places[0], &first, name), place_of(&places[1], &second, name)];
        assert!(both[0].is_some() && both[1].is_some() && both[0] != both[1], "{name}: {both:x?}");
        assert_eq!(image.kallsyms().named(name).count(), 2);
    }
    assert_eq!(places[0].extern_address("imported"), Some(0xffff_ffff_8100_0100));
    assert_eq!(places[0].extern_address("of_other"), place_of(&places[1], &second, "of_other"));
}

#[test]
fn objects_of_another_build_are_not_found() {
    let made = Made::usual();
    let image = link(&made.bytes()).unwrap();
    // The bytes of the code are the same: only a field of its table leads elsewhere.
    let other = Made::with(&["-DKEY=key_b"], &["--build-id=sha1"]);
    let found = wrong(&other.object("first.o"), &image);
    assert!(found.len() == 1 && found[0].starts_with("first LP3001") && found[0].contains("__jump_table"), "{found:?}");
    let other = Made::with(&["-DTEXT=\"another text\""], &["--build-id=sha1"]);
    let found = wrong(&other.object("second.o"), &image);
    assert!(found.len() == 1 && found[0].starts_with("of_other LP3001"), "{found:?}");
}

#[test]
fn compressed_files_are_the_same_module() {
    let made = Made::usual();
    let plain = link(&made.bytes()).unwrap();
    for (tool, ending) in [("gzip", "gz"), ("xz", "xz"), ("zstd", "zst")] {
        support::run(Command::new(tool).args(["-k", "-q", "-f"]).arg(made.path("two_parts.ko")));
        let packed = std::fs::read(made.path(&format!("two_parts.ko.{ending}"))).unwrap();
        let image = link(&packed).unwrap();
        assert!(
            image.sections().iter().zip(plain.sections()).all(|(a, b)| a.data == b.data && a.addr == b.addr),
            "{tool}"
        );
        for keep in (0..packed.len()).step_by(packed.len() / 50 + 1) {
            assert!(link(&packed[..keep]).is_err(), "{tool} cut to {keep}");
        }
    }
}

#[test]
fn files_that_cannot_be_used_are_refused() {
    let refusal = |data: &[u8]| link(data).unwrap_err().to_string();
    let no_id = Made::with(&[], &["--build-id=none"]);
    assert!(refusal(&no_id.bytes()).contains("LP3009") && refusal(&no_id.bytes()).contains("no build id"));
    let made = Made::usual();
    let laid_out = module::lay_out("m", &made.bytes(), &mut ModuleArea::default()).unwrap();
    let imports: std::collections::BTreeSet<&str> = laid_out.imports().collect();
    assert_eq!(imports, ["imported", "printed"].into());
    let error = laid_out.link(&|name| resolve(name).filter(|_| name != "printed")).unwrap_err().to_string();
    assert!(error.contains("LP3009") && error.contains("it imports printed"), "{error}");
    let mut nameless = made.bytes();
    let at = nameless.windows(5).position(|w| w == b"name=").unwrap();
    nameless[at] = b'N';
    assert!(refusal(&nameless).contains("has no name"));
    let error = refusal(&std::fs::read(made.path("first.o")).unwrap());
    assert!(error.contains("has no name"), "an object is no module: {error}");
}

#[test]
fn nothing_that_is_damaged_panics() {
    let data = Made::usual().bytes();
    for keep in (0..data.len()).step_by(37) {
        drop(link(&data[..keep]));
    }
    for at in (0..data.len()).step_by(13) {
        let mut odd = data.clone();
        odd[at] ^= 0xff;
        drop(link(&odd));
    }
}

#[test]
fn modules_lie_apart_and_what_one_exports_another_finds() {
    let made = Made::usual();
    let mut area = ModuleArea::default();
    let (a, b) = (
        module::lay_out("a", &made.bytes(), &mut area).unwrap(),
        module::lay_out("b", &made.bytes(), &mut area).unwrap(),
    );
    let (one, two) = (a.link(&resolve).unwrap(), b.link(&resolve).unwrap());
    for range in &one.module().unwrap().ranges {
        assert!(!two.holds(range.start));
    }
    assert_eq!(a.exported("of_other").map(|e| e.0), one.by_name("of_other"));
    assert_eq!(a.exported("step"), None, "what is local to one object is no export");
    assert!(Path::new(one.name()) != Path::new(two.name()));
}
