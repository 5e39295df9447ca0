//! The corpus: one folder per behaviour under `tests/corpus`, compiled old and new, plain and with function sections.
//!
//! A folder holds sources (`#ifdef NEW` is the fixed side, `#ifdef IMAGE` the running kernel when it is not the old build)
//! and `expect.toml`:
//!
//! ```toml
//! what = "one sentence"            # the behaviour
//! exit = 0                         # 0 patch, 3 nothing changed, 4 refused
//! changed = ["f"]                  # replaced functions
//! new = ["g"]                      # what is carried besides; `object: symbol` is not needed
//! ignored = ["h"]
//! refused = ["LP2001 counter"]     # code and symbol
//! sites = { f = "after-fentry" }
//! entries = { __bug_table = 1 }    # entries of the emitted table
//! refers = ["f -> g", "f -> g+0x8"] # references of the emitted code
//! flags = ["-fjump-tables"]        # more compiler flags
//! fentry = false                   # without -pg -mfentry
//! jump = "abs64"                   # the form of the jump
//! mode = "drain"                   # when to switch
//! lines-kept = true                # lines that are the same have the same numbers, as `lpbuild build` sees to
//! accept = ["type=struct foo"]     # what the author answers for
//! callbacks = { pre-apply = "f" }  # functions the runtime calls
//! oneshot = true                   # never reverted
//! data = ["table"]                 # constants that are to change in their place
//! in-place = ["table"]             # those that do
//! promises = ["f g"]               # functions and what they give away for good
//! notes = ["f g"]                  # the same where it is not certain; checked where the key is there
//! only-new = ["b.c"]               # files only the new tree has: run through the command line
//! image-only = ["strong.c"]        # files only the kernel has
//! modules = { m = ["m.c"] }        # two build trees, in which these sources are parts of modules (`support/trees.rs`); `changed` then has
//!                                  # the objects as well, and nothing is bound
//! linked = ["m"]                   # modules whose files both trees have
//! stale = ["m"]                    # the new tree has the old file
//! image = true                     # the objects of the kernel are linked
//! written = true                   # a patch folder is asked for
//! unseen = ["drivers/m.ko"]        # modules that are named as not compared
//! [bound]                          # binding to a kernel made of the old objects; by default it must succeed; with exit = 3
//!                                  # what its names say is refused
//! exit = 4
//! refused = ["LP3001 f"]
//! hide = ["name"]                  # not in kallsyms
//! twice = ["name"]                 # there twice
//! no-data = true                   # kallsyms lists no variables
//! [sections]                       # what differs with -ffunction-sections -fdata-sections, with a `why`
//! why = "..."
//! ```
//! Every patch is then read by a second reader and compared with its source (`support/check.rs`), symbolic and bound.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lpbuild::accept;
use lpbuild::codes;
use lpbuild::error::{Error, Problem};
use lpbuild::holder::HolderName;
use lpbuild::kernel::KernelImage;
use lpbuild::pipeline::{self};
use lpbuild::plan::Role;
use lpbuild::plan::manifest::{Callback, Callbacks, Function, Jump, Manifest, Mode};
use lpbuild::plan::{Analysis, Source};
use support::check::{Kernel, Patch};
use support::compile::{Recipe, Variant, compile, sources};
use support::image::{Image, Names, link};
use support::read::{Elf, Target, stride};
use support::trees::{self, Found, Modules};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn cases() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("expect.toml").is_file())
        .filter(|p| {
            std::env::var("CORPUS").is_ok_and(|c| p.to_string_lossy().contains(&c)) || std::env::var("CORPUS").is_err()
        })
        .collect();
    all.sort();
    all
}

const KEYS: &[&str] = &[
    "what",
    "exit",
    "changed",
    "new",
    "ignored",
    "refused",
    "sites",
    "entries",
    "refers",
    "flags",
    "fentry",
    "only-new",
    "image-only",
    "bound",
    "sections",
    "why",
    "hide",
    "twice",
    "no-data",
    "jump",
    "callbacks",
    "mode",
    "lines-kept",
    "accept",
    "oneshot",
    "data",
    "in-place",
    "promises",
    "notes",
    "modules",
    "linked",
    "stale",
    "image",
    "written",
    "unseen",
];

/// `expect.toml` of one variant.
struct Expect {
    table: toml::Table,
}

impl Expect {
    fn read(dir: &Path, variant: Variant) -> Self {
        let text = std::fs::read_to_string(dir.join("expect.toml")).unwrap();
        let mut table: toml::Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let own = table.remove("sections").map(|t| t.as_table().cloned().unwrap());
        assert!(
            table.contains_key("what") && table.contains_key("exit"),
            "{}: what and exit are missing",
            dir.display()
        );
        if let (Some(own), Variant::Sections) = (own, variant) {
            assert!(own.contains_key("why"), "{}: [sections] says no reason", dir.display());
            table.extend(own);
        }
        for key in
            table.keys().chain(table.get("bound").and_then(|b| b.as_table()).into_iter().flatten().map(|(k, _)| k))
        {
            assert!(KEYS.contains(&key.as_str()), "{}: unknown key {key}", dir.display());
        }
        Self { table }
    }
    fn bound(&self) -> Self {
        Self { table: self.table.get("bound").and_then(|b| b.as_table()).cloned().unwrap_or_default() }
    }
    fn exit(&self) -> i64 {
        self.table.get("exit").map_or(0, |e| e.as_integer().unwrap())
    }
    fn list(&self, key: &str) -> Vec<String> {
        let list = self.table.get(key).and_then(|l| l.as_array()).cloned().unwrap_or_default();
        let mut list: Vec<String> = list.iter().map(|v| v.as_str().unwrap().to_owned()).collect();
        if key != "flags" {
            list.sort();
        }
        list
    }
    fn map(&self, key: &str) -> BTreeMap<String, toml::Value> {
        self.table.get(key).and_then(|t| t.as_table()).map(|t| t.clone().into_iter().collect()).unwrap_or_default()
    }
}

/// What differs from what is expected.
#[derive(Default)]
struct Report(Vec<String>);

impl Report {
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, expected: &T) {
        if found != expected {
            self.0.push(format!("{what}\n      found    {found:?}\n      expected {expected:?}"));
        }
    }
    fn wrong(&mut self, what: String) {
        self.0.push(what);
    }
}

fn problems(list: &[Problem]) -> Vec<String> {
    let mut all: Vec<String> = list
        .iter()
        .map(|p| format!("{} {}", p.code.id, p.place.symbol.as_deref().or(p.place.object.as_deref()).unwrap_or("")))
        .collect();
    all.sort();
    all.dedup();
    all
}

fn names(analysis: &Analysis, wanted: impl Fn(Role) -> bool) -> Vec<String> {
    let items = analysis.set.items.iter().filter(|i| wanted(i.role));
    let mut all: Vec<String> =
        items.map(|i| analysis.pairs[i.pair.0 as usize].new.atom(i.atom.0).name.clone()).collect();
    all.sort();
    all
}

/// Functions and whose address they give away.
fn given_away(analysis: &Analysis, certain: bool) -> Vec<String> {
    let given = analysis.promises.iter().filter(|p| p.certain == certain);
    let mut all: Vec<String> = given.map(|p| format!("{} {}", p.function, p.symbol)).collect();
    all.sort();
    all
}

struct Built {
    sources: Vec<Source>,
    /// Old objects, or those made with `IMAGE`, and files only the kernel has.
    image: Vec<Vec<u8>>,
}

fn recipe(expect: &Expect, variant: Variant) -> Recipe {
    let fentry = expect.table.get("fentry").is_none_or(|f| f.as_bool().unwrap());
    Recipe { variant, fentry, flags: expect.list("flags") }
}

/// A case of two trees with modules.
fn run_trees(dir: &Path, expect: &Expect, variant: Variant) -> Report {
    let parts = |list: &toml::Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    let said = Modules {
        modules: expect.map("modules").iter().map(|(name, list)| (name.clone(), parts(list))).collect(),
        linked: expect.list("linked"),
        stale: expect.list("stale"),
        image: expect.table.contains_key("image"),
        written: expect.table.contains_key("written"),
    };
    let found = trees::run(dir, &recipe(expect, variant), &said, &support::options());
    let wanted = Found {
        exit: expect.exit(),
        changed: expect.list("changed"),
        refused: expect.list("refused"),
        unseen: expect.list("unseen"),
    };
    let mut report = Report::default();
    report.same("the trees", &found, &wanted);
    report
}

fn build(dir: &Path, expect: &Expect, variant: Variant, work: &Path) -> Built {
    let recipe = recipe(expect, variant);
    let image_only = expect.list("image-only");
    let mut built = Built { sources: Vec::new(), image: Vec::new() };
    for file in sources(dir) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let out = work.join("out.o");
        let object = |define: &str| compile(&file, &recipe, define, &out);
        if image_only.contains(&name) {
            built.image.push(object("IMAGE"));
            continue;
        }
        let old = object("");
        built.image.push(if text.contains("IMAGE") { object("IMAGE") } else { old.clone() });
        let source = Source {
            name: format!("{}.o", file.file_stem().unwrap().to_string_lossy()),
            old_path: file.clone(),
            new_path: file.clone(),
            old,
            new: object("NEW"),
            holder: HolderName::Vmlinux,
        };
        built.sources.push(source);
    }
    built
}

fn run_case(dir: &Path, variant: Variant) -> Report {
    let mut report = Report::default();
    let expect = Expect::read(dir, variant);
    if !expect.list("only-new").is_empty() {
        return report; // tests/cli.rs runs these: pairing is the command line's work.
    }
    if expect.table.contains_key("modules") {
        return run_trees(dir, &expect, variant);
    }
    let work = tempfile::tempdir().unwrap();
    let built = build(dir, &expect, variant, work.path());
    let mut options = support::options();
    if expect.table.contains_key("jump") {
        options.jump = Jump::Abs64;
    }
    if let Some(mode) = expect.table.get("mode") {
        options.mode = Mode::named(mode.as_str().unwrap());
    }
    for name in expect.list("accept") {
        let (kind, name) = accept::parse(&name).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        options.accept.add(kind, name);
    }
    options.oneshot = expect.table.contains_key("oneshot");
    options.data = expect.list("data");
    options.lines_kept = expect.table.contains_key("lines-kept");
    for (kind, function) in expect.map("callbacks") {
        let kind = Callback::ALL.into_iter().find(|c| c.name() == kind).unwrap_or_else(|| panic!("{kind}"));
        options.callbacks.set(kind, function.as_str().unwrap().to_owned());
    }
    let mut analysis = match pipeline::analyse(&built.sources, &options) {
        Ok(a) => a,
        Err(e) => {
            report.wrong(format!("broken: {e}"));
            return report;
        }
    };
    report.same("not needed", &analysis.unneeded, &Vec::new());
    report.same("changed", &names(&analysis, |r| matches!(r, Role::Replaces(_))), &expect.list("changed"));
    report.same("new", &names(&analysis, |r| matches!(r, Role::NewFunction | Role::Data)), &expect.list("new"));
    report.same("in-place", &names(&analysis, |r| matches!(r, Role::InPlace(_))), &expect.list("in-place"));
    let ignored: BTreeSet<String> =
        analysis.pairs.iter().flat_map(|p| &p.verdicts.ignored).map(|i| i.symbol.clone()).collect();
    report.same("ignored", &ignored.into_iter().collect(), &expect.list("ignored"));
    for (function, rule) in expect.map("sites") {
        let found = analysis.detour.sites.iter().find(|(i, _)| {
            let item = &analysis.set.items[*i];
            analysis.pairs[item.pair.0 as usize].new.atom(item.atom.0).name == function
        });
        let found = found.map(|(_, s)| s.rule.name());
        report.same(&format!("site of {function}"), &found, &rule.as_str());
    }
    report.same("promises", &given_away(&analysis, true), &expect.list("promises"));
    if expect.table.contains_key("notes") {
        report.same("notes", &given_away(&analysis, false), &expect.list("notes"));
    }
    if !analysis.refused.is_empty() {
        report.same("refused", &problems(&analysis.refused), &expect.list("refused"));
        report.same("exit", &4, &expect.exit());
        return report;
    }
    if analysis.set.items.is_empty() {
        report.same("exit", &3, &expect.exit());
        if expect.table.contains_key("bound") {
            let (_, kernel) = kernel_of(dir, &built, &expect.bound(), work.path());
            pipeline::check_names(&mut analysis, &kernel, &options);
            report.same("bound refused", &problems(&analysis.refused), &expect.bound().list("refused"));
            let differs = built.sources.iter().any(|s| pipeline::differs(s, &options).unwrap());
            report.same("differs", &differs, &true);
        }
        return report;
    }
    let symbolic = match pipeline::produce(&mut analysis, None, &options) {
        Ok(o) => o,
        Err(e) => {
            report.same("refused", &problems(&e.problems), &expect.list("refused"));
            report.same("exit", &i64::from(e.exit_code()), &expect.exit());
            return report;
        }
    };
    report.same("exit", &0, &expect.exit());
    report.same("refused", &Vec::new(), &expect.list("refused"));
    let news: Vec<(String, Elf)> = built.sources.iter().map(|s| (s.name.clone(), Elf::read(&s.new))).collect();
    let replaced: BTreeSet<String> = names(&analysis, |r| matches!(r, Role::Replaces(_))).into_iter().collect();
    let patch = Patch { patch: Elf::read(&symbolic.patch_o), news: &news, replaced: replaced.clone(), kernel: None };
    inspect(&patch, &expect, &mut report);
    if let Err(e) = patch.check() {
        report.wrong(format!("symbolic patch: {e}"));
    }
    read_again("symbolic", &symbolic.manifest, &mut report);

    let bound = expect.bound();
    let (image, kernel) = kernel_of(dir, &built, &bound, work.path());
    let output = match pipeline::produce(&mut analysis, Some(&kernel), &options) {
        Ok(o) => o,
        Err(e) => {
            report.same("bound refused", &problems(&e.problems), &bound.list("refused"));
            report.same("bound exit", &i64::from(e.exit_code()), &bound.exit());
            return report;
        }
    };
    report.same("bound exit", &0, &bound.exit());
    let patch = Patch {
        patch: Elf::read(&output.patch_o),
        news: &news,
        replaced,
        kernel: Some(Kernel { image: &image, read: &kernel }),
    };
    if let Err(e) = patch.check() {
        report.wrong(format!("bound patch: {e}"));
    }
    read_again("bound", &output.manifest, &mut report);
    called(&patch, &options.callbacks, &mut report);
    for f in &output.manifest.functions {
        let anchor = output.manifest.kernel.as_ref().map_or(0, |k| k.anchor_address);
        let at = anchor.wrapping_add(f.anchor_offset.unwrap_or(0) as u64);
        let named = image.at.get(&at).is_some_and(|n| n.contains(&f.symbol));
        if !named {
            report.wrong(format!("{} is bound to {at:#x}, which is {:?}", f.symbol, image.at.get(&at)));
        }
        let nop = [0x0f, 0x1f, 0x44, 0, 0];
        let site = match f.site.rule == "over-fentry" {
            true => Some(&nop[..]),
            false => kernel.read(at + u64::from(f.site.offset), f.site.size.into()),
        };
        report.same(&format!("original bytes of {}", f.symbol), &f.site.original_bytes().as_deref(), &site);
        if let Err(e) = same_beginning(&patch, f, at, site.unwrap_or_default()) {
            report.wrong(format!("lp_original_{}: {e}", f.symbol));
        }
    }
    let mut again = match pipeline::analyse(&built.sources, &options) {
        Ok(a) => a,
        Err(e) => panic!("{e}"),
    };
    let second = pipeline::produce(&mut again, Some(&kernel), &options).unwrap();
    if second.patch_o != output.patch_o || second.manifest != output.manifest {
        report.wrong("a second run gives another patch".into());
    }
    report
}

/// The kernel made of the old objects.
fn kernel_of(dir: &Path, built: &Built, bound: &Expect, work: &Path) -> (Image, KernelImage) {
    let no_data = bound.table.get("no-data").is_some_and(|v| v.as_bool() == Some(true));
    let edits = Names { hide: bound.list("hide"), twice: bound.list("twice"), no_data };
    let others: Vec<Vec<u8>> = built.sources.iter().map(|s| s.new.clone()).collect();
    let image = link(&built.image, &others, &edits, work);
    let kernel = KernelImage::from_bytes("image", image.file.clone());
    let kernel = kernel.unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    (image, kernel)
}

fn read_again(which: &str, manifest: &Manifest, report: &mut Report) {
    match manifest.to_toml().and_then(|t| Manifest::parse(&t, "manifest.toml")) {
        Ok(m) if m == *manifest => {}
        Ok(_) => report.wrong(format!("{which}: the manifest is not what was written")),
        Err(Error { problems }) => report.wrong(format!("{which}: {problems:?}")),
    }
}

/// Each thunk leads to its function, or nowhere.
fn called(patch: &Patch<'_>, callbacks: &Callbacks, report: &mut Report) {
    for callback in Callback::ALL {
        let thunk = patch.patch.symbols.iter().find(|s| s.name == callback.symbol());
        let leads = thunk.and_then(|t| Some((t.section?, t))).map(|(section, t)| {
            let code = patch.patch.code(section, t.value, t.size);
            let refs = code.into_iter().flat_map(|insn| insn.refs).filter_map(|r| match r.target {
                Target::Section(s, o) => Some(patch.patch.names_at(s, o)),
                Target::Extern(..) | Target::Absolute(_) => None,
            });
            refs.flatten().filter(|n| n.1 == 0).map(|n| n.0).collect::<Vec<String>>()
        });
        let found = leads.map(|l| l.into_iter().find(|n| Some(n.as_str()) == callbacks.get(callback)));
        report.same(callback.name(), &found, &Some(callbacks.get(callback).map(str::to_owned)));
    }
}

/// The copy of the covered instructions does what they do, and goes on behind them. No copy where one is a call.
fn same_beginning(patch: &Patch<'_>, f: &Function, old: u64, site: &[u8]) -> Result<(), String> {
    let at = old + u64::from(f.site.offset);
    let name = format!("lp_original_{}", f.symbol);
    let copies: Vec<_> = patch.patch.symbols.iter().filter(|s| s.name == name && s.section.is_some()).collect();
    let decode = |bytes: &[u8], ip| iced_x86::Decoder::with_ip(64, bytes, ip, 0).decode();
    let has_call = f.site.rule != "over-fentry" && f.site.instructions.iter().any(|i| i.starts_with("call"));
    let [copy] = copies[..] else {
        return if has_call && copies.is_empty() || copies.len() > 1 { Ok(()) } else { Err("there is none".into()) };
    };
    let code = patch.patch.code(copy.section.unwrap(), copy.value, copy.size);
    let mut code = code.iter();
    if code.next().map(|i| &i.bytes[..]) != Some(&[0xf3, 0x0f, 0x1e, 0xfa]) {
        return Err("no ENDBR".into());
    }
    let mut offset = 0;
    while offset < site.len() {
        let there = decode(&site[offset..], at + offset as u64);
        let here = code.next().ok_or("it ends early")?;
        let (text, len) = (here.bytes.as_slice(), there.len());
        let means = here.refs.first().and_then(|r| patch.address(&r.target));
        let copied = decode(text, 0);
        let same = if lpbuild::isa::is_near_branch(&there) {
            // The field was taken off.
            let copied = decode(&[text, &[0; 4]].concat(), 0);
            there.mnemonic() == copied.mnemonic() && means == Some(there.near_branch_target())
        } else if there.is_ip_rel_memory_operand() {
            there.mnemonic() == copied.mnemonic() && len == text.len() && means == Some(there.ip_rel_memory_address())
        } else if let Some(address) = means {
            let mut immediates = (0..there.op_count()).filter_map(|i| there.try_immediate(i).ok());
            let wanted = there.memory_displacement64() == address || immediates.any(|i| i == address);
            there.mnemonic() == copied.mnemonic() && len == text.len() && wanted
        } else {
            site[offset..offset + len] == *text
        };
        if !same {
            return Err(format!("{there} became {copied} {means:x?}"));
        }
        offset += len;
        use iced_x86::FlowControl::{Exception, IndirectBranch, Return, UnconditionalBranch};
        if matches!(there.flow_control(), UnconditionalBranch | IndirectBranch | Return | Exception) {
            break;
        }
    }
    let back = code.next().ok_or("it does not go on")?;
    let means = back.refs.first().and_then(|r| patch.address(&r.target));
    let behind = at + u64::from(f.site.size);
    if means == Some(behind) { Ok(()) } else { Err(format!("it goes on at {means:x?} instead of {behind:#x}")) }
}

/// Tables and references of the emitted object.
fn inspect(patch: &Patch<'_>, expect: &Expect, report: &mut Report) {
    for (table, count) in expect.map("entries") {
        let found = patch.patch.section(&table).map_or(0, |(_, s)| s.size / stride(&table, &patch.patch).unwrap_or(1));
        report.same(&format!("entries of {table}"), &(found as i64), &count.as_integer().unwrap());
    }
    let mut refers = BTreeSet::new();
    for f in patch.functions() {
        let Some(section) = f.section else { continue };
        for insn in patch.patch.code(section, f.value, f.size) {
            for r in insn.refs {
                match patch.through_island(&r.target) {
                    Target::Extern(name, 0) => {
                        refers.insert(format!("{} -> {name}", f.name));
                    }
                    Target::Extern(name, offset) => {
                        refers.insert(format!("{} -> {name}{offset:+#x}", f.name));
                    }
                    Target::Section(s, o) => {
                        let named = patch.patch.names_at(s, o).into_iter().filter(|n| n.1 == 0);
                        refers.extend(named.map(|(n, _)| format!("{} -> here {n}", f.name)));
                    }
                    _ => {}
                }
            }
        }
    }
    for wanted in expect.list("refers") {
        if !refers.contains(&wanted) {
            report.wrong(format!("no reference {wanted}; there are {refers:?}"));
        }
    }
}

#[test]
fn every_case_gives_what_it_says() {
    let cases = cases();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = std::sync::Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(dir) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    for variant in Variant::ALL {
                        let name = format!("{} ({})", dir.file_name().unwrap().to_string_lossy(), variant.name());
                        let run = || run_case(dir, variant);
                        let report = std::panic::catch_unwind(run).unwrap_or_else(|e| {
                            let text = e.downcast_ref::<String>().cloned();
                            Report(vec![format!("panicked: {}", text.unwrap_or_default())])
                        });
                        if !report.0.is_empty() {
                            failed.lock().unwrap().insert(name, report.0);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    for (name, what) in &failed {
        eprintln!("{name}");
        for w in what {
            eprintln!("    {w}");
        }
    }
    assert!(failed.is_empty(), "{} of {} runs differ", failed.len(), cases.len() * 2);
}

/// Codes of the refusing tables that no input can lead to, with the reason.
const NO_CASE: &[(&str, &str)] = &[
    ("LP2016", "needs linked images: builder/tests/whole.rs"),
    ("LP2025", "needs a kernel with read-only keys: unpatchable.rs"),
    ("LP2026", "needs modules: modules.rs, builder/tests/holders.rs"),
    ("LP3009", "needs modules: builder/tests/module_image.rs"),
];

#[test]
fn every_refusal_has_a_case() {
    let mut seen = String::new();
    for dir in cases() {
        seen.push_str(&std::fs::read_to_string(dir.join("expect.toml")).unwrap());
    }
    let refusing = |id: &str| ["LP20", "LP21", "LP30"].iter().any(|p| id.starts_with(p));
    for code in codes::all().filter(|c| refusing(c.id)) {
        let excused = NO_CASE.iter().any(|(id, _)| *id == code.id);
        assert!(seen.contains(code.id) != excused, "{} ({}): exactly one of a case and an excuse", code.id, code.title);
    }
}
