//! The in-kernel runtime: freestanding Rust to one relocatable object.
//!
//! Input: the sources of `abi` and `runtime-kmod`, a rustc whose sysroot holds the source of `core`. Output:
//! `<cache>/runtime/<hash>/runtime.o`, which the builder's build embeds. The hash covers everything the object depends
//! on, so an unchanged runtime is compiled once; `core`, which takes half a minute, once per compiler.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use harness::{cache, cmd, workspace_root};
use sha2::{Digest, Sha256};

use crate::init_text;

/// For `core` and the runtime alike.
///
/// Kernel code model and no red zone as all kernel code; return thunks, external retpolines and ENDBR as the kernels'
/// mitigations want them (`add_sls`, `RETPOLINE_CFLAGS`, `CONFIG_X86_KERNEL_IBT` in arch/x86/Makefile). Direct access
/// and PLT: without them calls to memcpy and memset are `R_X86_64_GOTPCREL`, which the module loader rejects.
/// Padding before every function, as C has it on kernels with call thunks (CONFIG_CALL_PADDING).
/// `immediate-abort` keeps formatting, and with it `__udivti3`, out.
const FLAGS: &[&str] = &[
    "--edition=2024",
    "--target=x86_64-unknown-none",
    "--sysroot=/dev/null",
    "--cap-lints=allow",
    "-Zunstable-options",
    "-Cpanic=immediate-abort",
    "-Copt-level=s",
    "-Ccode-model=kernel",
    "-Crelocation-model=static",
    "-Cno-redzone=y",
    "-Cforce-unwind-tables=no",
    "-Ccodegen-units=1",
    "-Zfunction-return=thunk-extern",
    "-Zcf-protection=branch",
    "-Zpatchable-function-entry=16,16",
    "-Zretpoline",
    "-Zretpoline-external-thunk",
    "-Zdirect-access-external-data=yes",
    "-Zplt=yes",
];

/// `core` wants a crate of this name; the functions it stands for come from the kernel.
const COMPILER_BUILTINS: &str = "#![feature(compiler_builtins)]\n#![compiler_builtins]\n#![no_builtins]\n#![no_std]\n";

/// Functions that `runtime-kmod/c` calls begin with this.
const ENTRY_PREFIX: &str = "lpbuild_";

/// Those that `__init` functions call, and nobody else (`runtime-kmod/c/{init,modules}.c`).
const INIT_ENTRIES: &[&str] = &[
    "lpbuild_deadline",
    "lpbuild_describe",
    "lpbuild_module_find",
    "lpbuild_module_half",
    "lpbuild_set_oneshot",
    "lpbuild_setup",
];

/// A compiler that can build `core`.
struct Rustc {
    program: PathBuf,
    core: PathBuf,
    version: String,
}

/// Compiles the runtime, unless it is in the cache, and returns the object's path.
pub fn build() -> Result<PathBuf> {
    let rustc = Rustc::find()?;
    let root = workspace_root();
    let mut sources = files(&root.join("abi/src"))?;
    // The C half is compiled with each module, but the number that tells runtimes apart stands for both.
    for folder in ["runtime-kmod/src", "runtime-kmod/c"] {
        sources.extend(files(&root.join(folder))?);
    }
    sources.extend(["apart.lds", "runtime.lds"].map(|name| root.join("runtime-kmod").join(name)));
    sources.sort();
    let mut hash = Sha256::new();
    hash.update(rustc.key());
    // How it is linked.
    hash.update(include_str!("runtime.rs"));
    hash.update(include_str!("init_text.rs"));
    hash.update(include_str!("sites.rs"));
    for path in &sources {
        let name = path.strip_prefix(&root).unwrap_or(path).to_string_lossy().into_owned();
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        hash.update(format!("{name} {}\n", text.len()));
        hash.update(text);
    }
    let hash = hex(&hash.finalize());
    let entry = cache::root()?.join("runtime").join(&hash);
    let core = rustc.core()?;
    let dir = cache::publish(&entry, |dir| {
        harness::progress("compiling the runtime");
        compile(&rustc, &core, &root, dir, &hash)
    })?;
    Ok(dir.join("runtime.o"))
}

/// Whether a compiler is there that can make the runtime.
pub fn has_compiler() -> bool {
    Rustc::find().is_ok()
}

fn compile(rustc: &Rustc, core: &Path, root: &Path, dir: &Path, hash: &str) -> Result<()> {
    let abi = dir.join("liblpbuild_abi.rlib");
    let object = dir.join("rust.o");
    // The same object wherever the checkout is.
    let remap = format!("--remap-path-prefix={}=.", root.display());
    let mut c = rustc.command(core);
    c.args(["--crate-name=lpbuild_abi", "--crate-type=rlib", &remap, "-o"]).arg(&abi);
    cmd::output(c.arg("abi/src/lib.rs").current_dir(root))?;
    let mut c = rustc.command(core);
    c.args(["--crate-name=lpbuild_runtime", "--crate-type=rlib", "--cfg=lpbuild_kernel", &remap]);
    c.arg(joined("--extern=lpbuild_abi=", &abi)).arg(joined("--emit=obj=", &object));
    c.env("LPBUILD_RUNTIME", hash.get(..16).context("a hash is longer")?);
    cmd::output(c.arg("runtime-kmod/src/lib.rs").current_dir(root))?;

    let entries: Vec<String> = cmd::output(cmd::command("nm").args(["--defined-only", "--extern-only"]).arg(&object))?
        .lines()
        .filter_map(|l| l.split_whitespace().nth(2))
        .filter(|name| name.starts_with(ENTRY_PREFIX))
        .map(str::to_owned)
        .collect();
    if entries.is_empty() {
        bail!("the runtime has no entry points: nothing begins with {ENTRY_PREFIX}");
    }
    let apart = dir.join("apart.o");
    let mut c = cmd::command("ld");
    c.args(["-r", "--gc-sections", "--strip-debug", "-e", "lpbuild_setup"]);
    for name in &entries {
        c.args(["-u", name]);
    }
    c.arg("-T").arg(root.join("runtime-kmod/apart.lds")).arg("-o").arg(&apart).arg(&object);
    c.arg("--start-group")
        .arg(core.join("libcore.rlib"))
        .arg(core.join("libcompiler_builtins.rlib"))
        .arg("--end-group");
    cmd::output(&mut c)?;
    let result = dir.join("runtime.o");
    let script = dir.join("runtime.lds");
    let text = fs::read_to_string(root.join("runtime-kmod/runtime.lds")).context("read runtime-kmod/runtime.lds")?;
    let init = init_text::find(&fs::read(&apart)?, ENTRY_PREFIX, INIT_ENTRIES)?;
    fs::write(&script, text.replace("@INIT@", &init.join(" ")))?;
    cmd::output(cmd::command("ld").arg("-r").arg("-T").arg(&script).arg("-o").arg(&result).arg(&apart))?;
    fs::remove_file(&apart)?;
    fs::remove_file(&script)?;
    // Only the entry points are anyone else's business; local names of one patch module must not meet another's.
    let mut c = cmd::command("objcopy");
    // Labels of the padding's places.
    c.arg("--discard-locals");
    for name in &entries {
        c.arg(format!("--keep-global-symbol={name}"));
    }
    // What only discarded parts of `core` refer to (floating point, mostly) is still listed as undefined.
    for name in cmd::output(cmd::command("nm").args(["--undefined-only", "--just-symbols"]).arg(&result))?.lines() {
        c.arg(format!("--strip-unneeded-symbol={name}"));
    }
    cmd::output(c.arg(&result))?;
    shorten(&result, dir)?;
    crate::sites::add(&result)?;
    fs::remove_file(&object)?;
    fs::remove_file(&abi)?;
    Ok(())
}

/// Bytes a name in the runtime has at most: the kernel's KSYM_NAME_LEN was 128 before 6.1.
const LONGEST_NAME: usize = 127;

/// Gives what Rust has named names that are short and can be read. The kernel keeps all names of a module in its memory (`layout_symtab`,
/// kernel/module/kallsyms.c) and prints them in backtraces; Rust's own are a hundred bytes each, those of closures in iterators up to 800. Where the kernel
/// prints such a function, `strscpy` in `module_address_lookup` (kernel/module/kallsyms.c, 6.12) returns
/// -E2BIG, which `__sprint_symbol` takes for a length: it writes over its caller's return address.
fn shorten(object: &Path, dir: &Path) -> Result<()> {
    let mut renames = String::new();
    let mut taken: BTreeMap<String, u32> = BTreeMap::new();
    for name in cmd::output(cmd::command("nm").args(["--just-symbols"]).arg(object))?.lines() {
        if let Some(short) = readable(name) {
            let alike = taken.entry(short.clone()).or_default();
            *alike += 1;
            let short = if *alike == 1 { short } else { format!("{short}.{alike}") };
            renames += &format!("{name} {short}\n");
        }
    }
    let list = dir.join("names");
    fs::write(&list, renames).with_context(|| format!("write {}", list.display()))?;
    cmd::output(cmd::command("objcopy").arg(joined("--redefine-syms=", &list)).arg(object))?;
    fs::remove_file(&list).with_context(|| format!("remove {}", list.display()))?;
    let names = cmd::output(cmd::command("nm").args(["--just-symbols"]).arg(object))?;
    match names.lines().find(|n| n.len() > LONGEST_NAME) {
        Some(name) => bail!("the runtime has a name of {} bytes: {name}", name.len()),
        None => Ok(()),
    }
}

/// The last words of the path that a name of Rust stands for, without what generic ones are made for; nothing for other names.
fn readable(name: &str) -> Option<String> {
    /// Module, type, function and, for closures, which of its own.
    const WORDS: usize = 4;
    let demangled = format!("{:#}", rustc_demangle::try_demangle(name).ok()?);
    let (mut words, mut word) = (Vec::new(), String::new());
    // Brackets that are open, and how many of them have arguments of generics in them.
    let (mut open, mut generic) = (Vec::new(), 0_u32);
    for c in demangled.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        let of_a_name = !word.is_empty() || open.is_empty() && !words.is_empty();
        if generic == 0 && !word.is_empty() && !["as", "closure", "lpbuild_runtime"].contains(&&*word) {
            words.push(std::mem::take(&mut word));
        }
        word.clear();
        match c {
            '<' => {
                open.push(of_a_name);
                generic += u32::from(of_a_name);
            }
            '>' => generic -= u32::from(open.pop().unwrap_or(false)).min(generic),
            _ => {}
        }
    }
    let last = words.get(words.len().saturating_sub(WORDS)..)?;
    Some(format!("lpr_{}", last.join("_")))
}

impl Rustc {
    /// `RUSTC` if it is set, else the first of the usual places whose sysroot has the source of `core`.
    fn find() -> Result<Self> {
        let mut candidates: Vec<PathBuf> = std::env::var_os("LPBUILD_RUSTC").into_iter().map(PathBuf::from).collect();
        candidates.extend(["/usr/bin/rustc", "rustc"].map(PathBuf::from));
        let mut tried = Vec::new();
        for program in candidates {
            let Ok(sysroot) = cmd::output(cmd::command(&program).args(["--print", "sysroot"])) else { continue };
            let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
            // An older compiler does not know every flag.
            let mut check = cmd::command(&program);
            check.env("RUSTC_BOOTSTRAP", "1").args(FLAGS).arg("--print=cfg");
            if core.join("src/lib.rs").is_file() && cmd::output(&mut check).is_ok() {
                let version = cmd::output(cmd::command(&program).arg("-vV"))?;
                return Ok(Self { program, core, version });
            }
            tried.push(program.display().to_string());
        }
        bail!(
            "no Rust compiler that is new enough and has the source of core among {tried:?}; install rustc-web and rust-web-src (Debian 12), or \
             `rustup component add rust-src`, or name one in LPBUILD_RUSTC"
        )
    }

    /// What compiled code depends on.
    fn key(&self) -> String {
        format!("{}\n{}\n{COMPILER_BUILTINS}", self.version, FLAGS.join("\n"))
    }

    /// The folder with `core` and the stub of `compiler_builtins`, compiled once per compiler.
    fn core(&self) -> Result<PathBuf> {
        let entry = cache::root()?.join(format!("core-{}", hex(&Sha256::digest(self.key()))));
        cache::publish(&entry, |dir| {
            harness::progress("compiling core for the kernel (once, half a minute)");
            let stub = dir.join("compiler_builtins.rs");
            fs::write(&stub, COMPILER_BUILTINS)?;
            let mut c = self.command(dir);
            c.args(["--crate-name=core", "--crate-type=rlib", "-o"]).arg(dir.join("libcore.rlib"));
            cmd::output(c.arg(self.core.join("src/lib.rs")))?;
            let mut c = self.command(dir);
            c.args(["--crate-name=compiler_builtins", "--crate-type=rlib", "-o"]);
            cmd::output(c.arg(dir.join("libcompiler_builtins.rlib")).arg(&stub))?;
            Ok(())
        })
    }

    /// A compiler run against the crates in `libs`.
    fn command(&self, libs: &Path) -> std::process::Command {
        let mut c = cmd::command(&self.program);
        // The flags are unstable; nothing else of a nightly compiler is used.
        c.env("RUSTC_BOOTSTRAP", "1").args(FLAGS).arg("-L").arg(libs);
        c
    }
}

fn joined(prefix: &str, path: &Path) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(path);
    text
}

/// All files below a folder.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// The first 16 bytes of a hash, as a folder name.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rust_become_words() {
        for (mangled, short) in [
            ("lpbuild_setup", None),
            ("lpb_operate", None),
            ("_RNvNtCs5k95e7ZfVDF_15lpbuild_runtime4site6encode", Some("lpr_site_encode")),
            (
                "_RNvMNtCs5k95e7ZfVDF_15lpbuild_runtime7machineINtB2_7MachineNtNtNtB4_7binding5linux5LinuxE6switchB4_",
                Some("lpr_machine_Machine_switch"),
            ),
            (
                "_RINvMs0_NtCs5k95e7ZfVDF_15lpbuild_runtime6switchINtB6_4ScanNtNtNtB8_7binding5linux5LinuxE4eachNCINvNtB8_6survey4passBV_E0EB8_",
                Some("lpr_switch_Scan_each"),
            ),
            ("_RNvNtNtCs5k95e7ZfVDF_15lpbuild_runtime7binding5entry7MACHINE", Some("lpr_binding_entry_MACHINE")),
        ] {
            assert_eq!(readable(mangled).as_deref(), short, "{mangled}");
        }
    }
}
