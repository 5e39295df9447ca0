//! Files that are unusual in one respect and large: a step that looks at everything for each of many things would not end.

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use lpbuild::holder::HolderName;
use lpbuild::pipeline::{self};
use lpbuild::plan::Source;
use object::LittleEndian as LE;
use object::elf::{FileHeader64, SHT_SYMTAB};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use support::{SCRIPT, analyse, changed, codes, link, options, run};
use tempfile::TempDir;

/// Assembles `text` in `folder`.
fn assemble(folder: &TempDir, object: &str, text: &str) {
    std::fs::write(folder.path().join("t.s"), text).unwrap();
    run(Command::new("as").current_dir(folder.path()).args(["-o", object, "t.s"]));
}

fn image(folder: &TempDir, name: &str, text: &str, relocations: bool) -> PathBuf {
    std::fs::write(folder.path().join("k.lds"), SCRIPT).unwrap();
    assemble(folder, "t.o", text);
    link(folder.path(), name, &["t.o".into()], relocations)
}

/// A function that refers to `what`.
fn function(name: &str, what: &str) -> String {
    format!(".globl {name}\n.type {name}, @function\n{name}: lea {what}(%rip), %rax\nret\n.size {name}, .-{name}\n")
}

/// Many empty objects at one place, and as many pointers to it; one object that reaches over all.
#[test]
fn many_objects_at_one_place() {
    const MANY: usize = 50_000;
    let text = |last: u32| {
        let mut text = format!(".text\n{}.data\n.balign 64\n", function("user", "outer"));
        writeln!(text, ".type outer, @object\n.size outer, {}\nouter: .quad 1", 16 * MANY).unwrap();
        for i in 0..MANY {
            writeln!(text, ".type e{i}, @object\n.size e{i}, 0\ne{i}:").unwrap();
        }
        for i in 0..MANY {
            writeln!(text, ".type s{i}, @object\n.size s{i}, 4\ns{i}: .quad e0 + {}", i % 64).unwrap();
        }
        writeln!(text, ".fill {MANY}, 8, 0\n.type last, @object\n.size last, 8\nlast: .quad {last}").unwrap();
        text
    };
    let folder = tempfile::tempdir().unwrap();
    for relocations in [true, false] {
        let (old, new) = (image(&folder, "old", &text(1), relocations), image(&folder, "new", &text(2), relocations));
        let analysis = analyse(&old, &new);
        assert_eq!((changed(&analysis), codes(&analysis)), (vec![], vec!["LP2001"]), "relocations: {relocations}");
    }
}

/// Constants that point to each other, the one that differs at the end.
#[test]
fn a_long_chain_of_constants() {
    const MANY: usize = 100_000;
    let text = |last: u32| {
        let mut text = format!(".text\n{}.section .rodata\n.balign 8\n", function("user", "c0"));
        for i in 0..=MANY {
            let next = if i < MANY { format!("c{}", i + 1) } else { last.to_string() };
            writeln!(text, ".type c{i}, @object\n.size c{i}, 8\nc{i}: .quad {next}").unwrap();
        }
        text
    };
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (image(&folder, "old", &text(1), true), image(&folder, "new", &text(2), true));
    let (old, new) = (lpbuild::whole::Backing::open(&old).unwrap(), lpbuild::whole::Backing::open(&new).unwrap());
    let (old, new) = (old.whole().unwrap(), new.whole().unwrap());
    let scanned = lpbuild::whole::scan_pair(&old, &new);
    assert_eq!((scanned.compared.code.len(), scanned.compared.data.len()), (1, MANY + 1));
}

/// Pieces of functions that all have one name.
#[test]
fn many_pieces_of_one_name() {
    const MANY: usize = 100_000;
    let text = |number: u32| {
        let mut text = String::from(".text\n");
        for i in 0..MANY {
            let number = if i == 0 { number } else { 7 };
            writeln!(text, ".type fun_{i:06}, @function\nfun_{i:06}: mov ${number}, %eax\njmp fun_{i:06}.cold")
                .unwrap();
            writeln!(text, ".size fun_{i:06}, .-fun_{i:06}").unwrap();
        }
        for i in 0..MANY {
            writeln!(text, ".type fun_{i:06}.cold, @function\nfun_{i:06}.cold: ret\nret").unwrap();
            writeln!(text, ".size fun_{i:06}.cold, .-fun_{i:06}.cold").unwrap();
        }
        text
    };
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (image(&folder, "old", &text(1), true), image(&folder, "new", &text(2), true));
    for file in [&old, &new] {
        rename(file);
    }
    assert_eq!(analyse(&old, &new).set.items.len(), 2, "the function that changed and its piece");
}

/// Gives all `fun_N` one name, and all `fun_N.cold`.
fn rename(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let mut names: Vec<(usize, u32)> = Vec::new();
    {
        let data = &*bytes;
        let header = FileHeader64::<LE>::parse(data).unwrap();
        let table = header.sections(LE, data).unwrap();
        let section = table.iter().find(|s| s.sh_type(LE) == SHT_SYMTAB).unwrap();
        let symbols = table.symbols(LE, data, SHT_SYMTAB).unwrap();
        let (mut function, mut piece) = (None, None);
        for (i, symbol) in symbols.iter().enumerate() {
            let name = symbols.symbol_name(LE, symbol).unwrap();
            if !name.starts_with(b"fun_") {
                continue;
            }
            let common = if name.ends_with(b".cold") { &mut piece } else { &mut function };
            let common = *common.get_or_insert(symbol.st_name(LE));
            names.push((section.sh_offset(LE) as usize + i * 24, common));
        }
        // A piece is named for its function.
        let text = |at: u32| symbols.strings().get(at).unwrap();
        assert_eq!([text(function.unwrap()), b".cold"].concat(), text(piece.unwrap()));
    }
    for (at, name) in names {
        bytes[at..at + 4].copy_from_slice(&name.to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

/// References of an object to behind all of its data.
#[test]
fn many_references_to_nothing() {
    const MANY: usize = 100_000;
    let text = |last: u32| {
        let mut text = format!(".text\n{}.data\n", function("user", "d0"));
        for i in 0..MANY {
            writeln!(text, ".type d{i}, @object\n.size d{i}, 8\nd{i}: .quad .data + 0x1000000 + {i}").unwrap();
        }
        writeln!(text, ".type last, @object\n.size last, 8\nlast: .quad {last}").unwrap();
        text
    };
    let folder = tempfile::tempdir().unwrap();
    let object = |number: u32| {
        assemble(&folder, "t.o", &text(number));
        std::fs::read(folder.path().join("t.o")).unwrap()
    };
    let source = Source {
        name: "t.o".into(),
        old_path: "old.o".into(),
        new_path: "new.o".into(),
        old: object(1),
        new: object(2),
        holder: HolderName::Vmlinux,
    };
    let analysis = pipeline::analyse(&[source], &options()).unwrap();
    assert_eq!(codes(&analysis), ["LP2001"]);
}
