//! Damaged records: every byte of valid ones is changed, and what the module would do with them is done.
//!
//! Each is refused, or applied and reverted; either way the kernel's code is what it was, and nothing outside of the module is
//! read. The module's memory is real and has pages around it that cannot be read; its digest is made to fit again, so that it is
//! the checks that are tested and not the digest. `LPBUILD_DAMAGES` sets how many are made by chance besides, `LPBUILD_SEED` which.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::{c_int, c_long, c_void},
    ptr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use lpbuild_abi::{
    ABI_VERSION, AnchorKind, AnchorRecord, DataRecord, FieldKind, FuncRecord, HolderRecord, LateReloc, MAGIC, MAX_SITE,
    PatchRecord, RangeRecord, Region,
};
use lpbuild_runtime::{
    board::Board,
    constants::Constants,
    holders::{Holders, Joining, named},
    identity,
    kernel::Kernel,
    layers::{Layers, Peer},
    machine::{Machine, Parts, Step},
    record::{Memory, Patch},
    refusal::Refusal,
    site::Route,
    sites::{SiteSet, Sites},
};

use crate::sim::{FakeModule, LEN, SITE, Sim};

const PAGE: usize = 4096;
/// Distance from a module's memory to the old functions, in reach of a `rel32` jump.
const DISTANCE: u64 = 0x1000_0000;
const FUNCS: usize = 3;
/// What a module that comes before the first operation gets.
const AT_FIRST: Joining = Joining { route: Route::Original, trapped: false };

unsafe extern "C" {
    fn mmap(addr: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: c_long) -> *mut c_void;
    fn mprotect(addr: *mut c_void, len: usize, prot: c_int) -> c_int;
}

/// The memory of all modules of a test: for each a page of data and one of code, with pages between that nobody can read.
struct Arena {
    start: usize,
}

impl Arena {
    fn new(modules: usize) -> Self {
        let pages = modules * 4 + 1;
        // SAFETY: new memory; PROT_NONE, and MAP_PRIVATE | MAP_ANONYMOUS.
        let start = unsafe { mmap(ptr::null_mut(), pages * PAGE, 0, 0x22, -1, 0) } as usize;
        assert_ne!(start, usize::MAX, "no memory");
        for page in (0..modules).flat_map(|m| [m * 4 + 1, m * 4 + 3]) {
            // SAFETY: pages of this memory; PROT_READ | PROT_WRITE.
            assert_eq!(unsafe { mprotect((start + page * PAGE) as *mut c_void, PAGE, 3) }, 0);
        }
        Self { start }
    }
    fn module(&self, n: usize) -> Own {
        Own { data: (self.start + (n * 4 + 1) * PAGE) as u64, code: (self.start + (n * 4 + 3) * PAGE) as u64 }
    }
    /// Where the old functions are, 0x100 apart.
    fn old(&self, f: usize) -> u64 {
        self.start as u64 - DISTANCE + f as u64 * 0x100
    }
    /// Where the constant is.
    fn constant(&self) -> u64 {
        self.old(FUNCS)
    }
}

/// What the constant holds.
const CONTENT: [u8; 16] = [0x5a; 16];

/// The memory of a module.
#[derive(Clone, Copy)]
struct Own {
    data: u64,
    code: u64,
}

impl Memory for Own {
    fn holds(&self, addr: u64, len: u64) -> bool {
        let size = PAGE as u64;
        [self.data, self.code].iter().any(|&at| addr >= at && len <= size && addr - at <= size - len)
    }
}

/// What is in the module's data, as it should be.
struct Image {
    own: Own,
    /// Records and strings, which end where the page ends.
    at: u64,
    bytes: Vec<u8>,
    /// So many of the last are strings.
    strings: usize,
}

struct Spec<'s> {
    name: &'s str,
    funcs: &'s [usize],
    after: &'s [&'s str],
    replaces: &'s [&'s str],
    mode: u8,
    /// The last function is one of a kernel module, which is not here, and refers to it and to another.
    modules: bool,
    /// A constant of the kernel changes.
    data: bool,
}

fn bytes_of<T>(value: &T) -> Vec<u8> {
    // SAFETY: records have no padding.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }.to_vec()
}

fn image(arena: &Arena, n: usize, spec: &Spec<'_>) -> Image {
    let own = arena.module(n);
    let mut strings = Vec::new();
    let mut offset = |s: &str| {
        let at = strings.len();
        strings.extend(s.bytes().chain([0]));
        at
    };
    let names = [offset(spec.name), offset("1.0")];
    let funcs: Vec<usize> = spec.funcs.iter().map(|f| offset(&format!("function_{f}"))).collect();
    let others = [spec.after, spec.replaces].map(|l| l.iter().map(|n| offset(n)).collect::<Vec<_>>());
    let late =
        ["target", "exporter", "a_symbol", "a_witness", "exported"].map(|n| if spec.modules { offset(n) } else { 0 });
    while !strings.len().is_multiple_of(8) {
        strings.insert(0, 0);
    }
    let lead = strings.iter().take_while(|b| **b == 0).count();
    let end = own.data + PAGE as u64;
    let string = |at: usize| end - strings.len() as u64 + (lead + at) as u64;
    let sizes = [size_of::<FuncRecord>(), size_of::<RangeRecord>()].map(|s| s * spec.funcs.len());
    let [funcs_len, ranges_len] = sizes;
    let (after_len, replaces_len) = (others[0].len() * 8, others[1].len() * 8);
    let counts = if spec.modules { [2, 5, 6] } else { [0; 3] };
    let [holders_len, anchors_len, relocs_len] = [
        counts[0] * size_of::<HolderRecord>(),
        counts[1] * size_of::<AnchorRecord>(),
        counts[2] * size_of::<LateReloc>(),
    ];
    let late_len = holders_len + anchors_len + relocs_len;
    let data_len = if spec.data { CONTENT.len() * 2 + size_of::<DataRecord>() } else { 0 };
    let records_len =
        size_of::<PatchRecord>() + funcs_len + ranges_len + after_len + replaces_len + late_len + data_len;
    let at = end - (records_len + strings.len()) as u64;
    let funcs_at = at + size_of::<PatchRecord>() as u64;
    let ranges_at = funcs_at + funcs_len as u64;
    let after_at = ranges_at + ranges_len as u64;
    let replaces_at = after_at + after_len as u64;
    let holders_at = replaces_at + replaces_len as u64;
    let anchors_at = holders_at + holders_len as u64;
    let relocs_at = anchors_at + anchors_len as u64;
    let contents_at = relocs_at + relocs_len as u64;
    let data_at = contents_at + CONTENT.len() as u64 * 2;
    let in_kernel = spec.funcs.len() - usize::from(spec.modules);
    let some = |at: u64| if spec.modules { at } else { 0 };
    let mut original = [0; MAX_SITE];
    original[..SITE.len()].copy_from_slice(&SITE);
    let mut bytes = bytes_of(&PatchRecord {
        magic: MAGIC,
        abi_version: ABI_VERSION,
        mode: spec.mode,
        build_id_len: 20,
        flags: 0,
        build_id: std::array::from_fn(|i| if i < 20 { 7 } else { 0 }),
        deadline_ms: 1000,
        n_funcs: spec.funcs.len() as u32,
        n_ranges: spec.funcs.len() as u32,
        patience_ms: 15_000,
        funcs: funcs_at,
        ranges: ranges_at,
        name: string(names[0]),
        version: string(names[1]),
        notes_start: notes(arena),
        notes_end: notes(arena) + 36,
        text_start: own.code,
        text_end: own.code + spec.funcs.len() as u64 * 0x100,
        after: if after_len == 0 { 0 } else { after_at },
        replaces: if replaces_len == 0 { 0 } else { replaces_at },
        n_after: others[0].len() as u32,
        n_replaces: others[1].len() as u32,
        digest: 0,
        holders: some(holders_at),
        anchors: some(anchors_at),
        relocs: some(relocs_at),
        n_holders: counts[0] as u32,
        n_anchors: counts[1] as u32,
        n_relocs: counts[2] as u32,
        n_kernel_funcs: in_kernel as u32,
        n_kernel_ranges: in_kernel as u32,
        n_data: u32::from(spec.data),
        data: if spec.data { data_at } else { 0 },
    });
    for (i, &f) in spec.funcs.iter().enumerate() {
        let new = own.code + i as u64 * 0x100;
        bytes.extend(bytes_of(&FuncRecord {
            old: if i < in_kernel { arena.old(f) } else { 0x40 },
            new,
            name: string(funcs[i]),
            old_size: LEN,
            new_size: 0x80,
            site_offset: 5,
            site_size: SITE.len() as u8,
            jump_kind: 1,
            covers_fentry: 0,
            original,
            single: 0,
            resume: new + 0x90,
            dispatch: new + 0xc0,
            anchor: u32::from(i >= in_kernel),
            zero: 0,
        }));
    }
    for (i, &f) in spec.funcs.iter().enumerate() {
        let start = if i < in_kernel { arena.old(f) } else { 0x40 };
        let anchor = u32::from(i >= in_kernel);
        bytes.extend(bytes_of(&RangeRecord { start, len: LEN, func: i as u32, anchor, zero: 0 }));
    }
    for name in others.iter().flatten() {
        bytes.extend(string(*name).to_le_bytes());
    }
    if spec.modules {
        let site = funcs_at + (in_kernel * size_of::<FuncRecord>() + std::mem::offset_of!(FuncRecord, original)) as u64;
        bytes.extend(modules(own, late.map(string), own.code + in_kernel as u64 * 0x100, in_kernel, site));
    }
    if spec.data {
        bytes.extend(CONTENT.iter().chain(&CONTENT.map(|b| b ^ 0xff)));
        bytes.extend(bytes_of(&DataRecord {
            addr: arena.constant(),
            old: contents_at,
            new: contents_at + CONTENT.len() as u64,
            name: string(names[0]),
            len: CONTENT.len() as u32,
            zero: 0,
        }));
    }
    bytes.extend(&strings);
    assert_eq!(at + bytes.len() as u64, end);
    Image { own, at, bytes, strings: strings.len() }
}

/// Records of two modules: one with function `func`, whose new code is at `new`, and one to which that refers.
fn modules(own: Own, names: [u64; 5], new: u64, func: usize, site: u64) -> Vec<u8> {
    let build_id = std::array::from_fn(|i| if i < 20 { 9 } else { 0 });
    let holder = |name, n: [u32; 4]| HolderRecord {
        name,
        data: 0,
        data_end: 0,
        bss: 0,
        bss_end: 0,
        rodata: 0,
        rodata_end: 0,
        jumps: 0,
        jumps_end: 0,
        calls: 0,
        calls_end: 0,
        sealed: 0,
        sealed_end: 0,
        needs: 0,
        build_id,
        n_funcs: n[0],
        n_ranges: n[1],
        n_anchors: n[2],
        n_relocs: n[3],
        build_id_len: 20,
        zero: [0; 7],
    };
    let target = HolderRecord {
        data: own.data + 0x40,
        data_end: own.data + 0x58,
        bss: own.data + 0x60,
        bss_end: own.data + 0x70,
        rodata: own.data + 0x80,
        rodata_end: own.data + 0x90,
        jumps: own.data + 0x40,
        jumps_end: own.data + 0x50,
        calls: own.data + 0x50,
        calls_end: own.data + 0x58,
        needs: 2,
        ..holder(names[0], [1, 1, 4, 6])
    };
    let anchor = |owner, kind: AnchorKind, region: Region| AnchorRecord {
        name: 0,
        witness: 0,
        delta: 0,
        witness_delta: 0,
        at: 0,
        owner,
        position: 0,
        count: 0,
        witness_position: 0,
        witness_count: 0,
        of: 0,
        size: 0x200,
        kind: kind as u8,
        field: 0,
        region: region as u8,
        zero: 0,
    };
    let by_symbol = |owner, name, region| AnchorRecord { name, count: 1, ..anchor(owner, AnchorKind::Symbol, region) };
    let text = AnchorRecord {
        delta: 0x40,
        witness: names[3],
        witness_delta: 0x80,
        position: 1,
        count: 2,
        witness_count: 1,
        ..by_symbol(0, names[2], Region::Text)
    };
    let field = AnchorRecord {
        at: 0x1f0,
        delta: 12,
        field: FieldKind::Pc32 as u8,
        ..anchor(0, AnchorKind::Field, Region::Rodata)
    };
    let percpu = anchor(0, AnchorKind::Percpu, Region::Percpu);
    let this = anchor(0, AnchorKind::Module, Region::Data);
    let exported = by_symbol(1, names[4], Region::Data);
    let reloc = |at, anchor, kind: FieldKind| LateReloc {
        at,
        addend: 8,
        anchor,
        site_of: 0,
        stub: 0,
        kind: kind as u8,
        zero: [0; 7],
    };
    let mut relocs = [
        LateReloc { addend: -4, stub: new + 0x70, ..reloc(new + 0x20, 0, FieldKind::Plt32) },
        reloc(own.code + 0x49, 0, FieldKind::Plt32),
        reloc(own.data + 0x48, 3, FieldKind::Pc64),
        reloc(own.data + 0x54, 3, FieldKind::Pc32),
        reloc(own.data + 0x84, 1, FieldKind::Pc32),
        LateReloc { site_of: func as u32 + 1, ..reloc(site + 4, 2, FieldKind::Abs32S) },
    ];
    relocs.sort_by_key(|r| r.at);
    let mut bytes = [target, holder(names[1], [0, 0, 1, 0])].iter().flat_map(bytes_of).collect::<Vec<_>>();
    bytes.extend([text, field, percpu, this, exported].iter().flat_map(bytes_of));
    bytes.extend(relocs.iter().flat_map(bytes_of));
    bytes
}

/// Where the notes of the kernel are.
fn notes(arena: &Arena) -> u64 {
    arena.old(0) - 0x1000
}

/// The kernel's code and notes, and the modules' code, as the kernel reads it.
fn kernel(arena: &Arena, modules: usize) -> Sim {
    let sim = Sim::new(2);
    for f in 0..FUNCS {
        sim.put(arena.old(f), &[0x90; LEN as usize]);
        sim.put(arena.old(f) + 5, &SITE);
    }
    sim.put(arena.constant(), &CONTENT);
    let note: Vec<u8> = [4u32, 20, 3].iter().flat_map(|n| n.to_le_bytes()).chain(*b"GNU\0").chain([7; 20]).collect();
    sim.put(notes(arena), &note);
    for n in 0..modules {
        let code = arena.module(n).code;
        sim.put(code, &[0x90; FUNCS * 0x100]);
        let data = arena.module(n).data;
        sim.put(data, &[0; 0xa0]);
        // A jump of a key, to what lies behind it.
        let (jump, entry) = (code + 0x40, data + 0x40);
        sim.put(jump, &[0x0f, 0x1f, 0x44, 0, 0]);
        sim.put(entry, &(jump.wrapping_sub(entry) as u32).to_le_bytes());
        sim.put(entry + 4, &(jump + 5).wrapping_sub(entry + 4).to_le_bytes()[..4]);
        // A static call.
        let (call, entry) = (code + 0x48, data + 0x50);
        sim.put(call, &[0xe8, 0, 0, 0, 0]);
        sim.put(entry, &(call.wrapping_sub(entry) as u32).to_le_bytes());
        let data = arena.module(n).data;
        sim.world().own_code.extend([code..code + PAGE as u64, data..data + PAGE as u64]);
    }
    if modules == 1 {
        target(arena, &sim);
    }
    // In nobody's way, unless a range is longer than it should be.
    sim.task(42, Ok(vec![arena.old(0) + u64::from(LEN) + 0x20]));
    sim
}

/// The kernel modules that a patch may have functions of, and refer to.
fn target(arena: &Arena, sim: &Sim) {
    let (text, exporter) = (target_text(arena), target_text(arena) + 0x1_0000);
    let (rodata, data) = (text + 0x1000, text + 0x2000);
    let mut code = vec![0x90; 0x200];
    code[0x45..0x45 + SITE.len()].copy_from_slice(&SITE);
    code[0x49..0x4d].copy_from_slice(&(PERCPU as u32 + 8).to_le_bytes());
    let field = (rodata + 0x40 + 12).wrapping_sub(text + 0x1f0) as u32;
    code[0x1f0..0x1f4].copy_from_slice(&field.to_le_bytes());
    sim.put(text, &code);
    let note = |id: u8| [4u32, 20, 3].iter().flat_map(|n| n.to_le_bytes()).chain(*b"GNU\0").chain([id; 20]).collect();
    let note: Vec<u8> = note(9);
    sim.put(rodata, &[note.as_slice(), &[0; 0x240 - 36]].concat());
    sim.put(exporter, &note);
    let mut w = sim.world();
    w.modules.insert(
        data as usize,
        FakeModule {
            name: "target",
            symbols: vec![("a_symbol", text + 8), ("a_symbol", text + 0x40), ("a_witness", text + 0x80)],
            regions: [(text, 0x200), (rodata, 0x240), (0, 0), (data, 0x200), (PERCPU, 0x200)],
        },
    );
    w.modules.insert(
        exporter as usize,
        FakeModule {
            name: "exporter",
            symbols: vec![("exported", exporter + 0x1000)],
            regions: [(0, 0), (exporter, 36), (0, 0), (exporter + 0x1000, 0x200), (0, 0)],
        },
    );
}

/// Where the code of the first is, and its per-CPU variables.
fn target_text(arena: &Arena) -> u64 {
    arena.start as u64 - 0x1800_0000
}
const PERCPU: u64 = 0x2_0000;

/// A module that is loaded: what its runtime has besides the records.
struct Module<'m> {
    patch: Patch<'m>,
    board: Board,
    armed: &'m AtomicBool,
    cancel: AtomicBool,
    force: AtomicBool,
    sites: Sites<u64>,
    constants: Constants<u64>,
    holders: RefCell<Holders<u64>>,
    seats: [AtomicUsize; 2],
}

impl Image {
    /// Writes the records into the module's memory.
    fn write(&self, bytes: &[u8]) {
        // SAFETY: the end of the data page; nobody has a reference to it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at as *mut u8, bytes.len()) };
    }
    fn record(&self) -> &PatchRecord {
        // SAFETY: aligned, and all of it is there.
        unsafe { &*(self.at as *const PatchRecord) }
    }
    /// The records as setup finds them, with the digest of what they are now.
    fn sealed(&self) -> Result<Patch<'_>, Refusal> {
        // SAFETY: the memory stays, and is written again only when nobody refers to it.
        let digest = unsafe { Patch::unsealed(self.record(), &self.own) }?.digest();
        let at = std::mem::offset_of!(PatchRecord, digest);
        // SAFETY: inside the data page; the patch above is gone.
        unsafe { ((self.at + at as u64) as *mut u64).write(digest) };
        // SAFETY: as above.
        unsafe { Patch::new(self.record(), &self.own) }
    }
}

impl<'m> Module<'m> {
    fn new(patch: Patch<'m>, armed: &'m AtomicBool) -> Self {
        let no = || AtomicBool::new(false);
        let seats = [AtomicUsize::new(0), AtomicUsize::new(0)];
        Self {
            patch,
            board: Board::new(),
            armed,
            cancel: no(),
            force: no(),
            sites: Sites::new(),
            constants: Constants::new(),
            holders: RefCell::default(),
            seats,
        }
    }
    fn all_sites(&self) -> SiteSet<'_, u64> {
        // SAFETY: nothing is given back yet.
        SiteSet::new(self.sites.all(), unsafe { self.holders.borrow().shown() })
    }
    /// The kernel module that the patch has a function of, if any, is here.
    fn join(&self, sim: &Sim) -> Result<(), Refusal> {
        let mut all = self.holders.borrow_mut();
        all.prepare(sim, &self.patch)?;
        let here = sim.module(b"target").zip(named(&self.patch, b"target"));
        here.map_or(Ok(()), |(module, i)| all.join(sim, (&self.patch, &Layers::new()), i, module, AT_FIRST, false))
    }
    fn leave(&self, sim: &Sim) {
        let mut all = self.holders.borrow_mut();
        all.close();
        for i in 0..self.patch.holders.len() {
            all.going(sim, i, AT_FIRST);
            all.gone(sim, &self.patch, i, AT_FIRST);
            all.left(sim, &self.patch, i);
        }
        // SAFETY: nobody is left who looks at them.
        unsafe {
            all.clear(sim);
            self.sites.clear(sim);
        }
        self.constants.clear(sim);
    }
    fn machine<'a>(&'a self, sim: &'a Sim, layers: &'a Layers<'_, u64>, frames: &'a mut [u64]) -> Machine<'a, Sim> {
        let parts = Parts {
            sites: self.all_sites(),
            // SAFETY: nothing is given back yet.
            located: unsafe { self.holders.borrow().located() },
            others: layers.others(),
            constants: &self.constants,
            armed: self.armed,
            board: &self.board,
            cancel: &self.cancel,
            force: &self.force,
            seats: &self.seats,
            frames,
        };
        Machine::new(sim, self.patch, parts)
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Records,
    Kernel,
    Setup,
    Join,
    Apply,
    Reverted,
}

/// Steps until the end, however much time that wants.
fn operate<'a>(
    sim: &Sim,
    m: &mut Machine<'a, Sim>,
    it: &'a Module<'_>,
    layers: &'a Layers<'_, u64>,
    revert: bool,
) -> Step {
    for turn in 0u64..2000 {
        match if revert { m.revert() } else { m.apply() } {
            Step::Again(ms) => sim.pass(ms + turn / 100 * 1_000_000),
            Step::RcuTasks | Step::Effective => {}
            Step::Call(callback) => m.called(callback, 0),
            Step::Replaced => {
                layers.let_go(sim, &it.patch, &it.sites);
                m.replaced_others(it.all_sites(), layers.others());
            }
            end => return end,
        }
    }
    panic!("it never ends: {:?}", m.status());
}

/// What the module does: everything that `insmod`, a revert and `rmmod` run.
fn live(sim: &Sim, image: &Image, peers: &RefCell<BTreeMap<Vec<u8>, Peer<'_, u64>>>) -> End {
    let Ok(patch) = image.sealed() else { return End::Records };
    if identity::check(sim, &patch).is_err() {
        return End::Kernel;
    }
    let m = Module::new(patch, &sim.armed);
    let mut layers = Layers::new();
    let hold = |other| peers.borrow_mut().remove(patch.other_name(other)).ok_or(Refusal::NoOther { other });
    // What is written is not what says where to write.
    sim.world().forbidden = image.at..image.at + (image.bytes.len() - image.strings) as u64;
    let prepared = m.sites.prepare(sim, &patch, &mut layers, hold);
    let end = if prepared.and_then(|()| m.constants.prepare(sim, &patch)).is_err() {
        End::Setup
    } else if m.join(sim).is_err() {
        End::Join
    } else {
        let mut frames = [0; 16];
        let mut machine = m.machine(sim, &layers, &mut frames);
        if patch.is_oneshot() {
            machine.force();
        }
        match operate(sim, &mut machine, &m, &layers, false) {
            Step::Done => {
                for s in m.all_sites().iter().filter(|s| s.func < patch.funcs.len()) {
                    let now = sim.get(s.addr, 5);
                    let rel = i32::from_le_bytes([now[1], now[2], now[3], now[4]]);
                    let to = (s.addr + 5).wrapping_add_signed(rel.into());
                    assert!(now[0] == 0xe9 && image.own.code <= to, "{:#x} leads to {to:#x}", s.addr);
                    assert!(to < patch.record.text_end, "{:#x} leads to {to:#x}", s.addr);
                }
                assert_eq!(operate(sim, &mut machine, &m, &layers, true), Step::Done, "it stays for ever");
                End::Reverted
            }
            _ => End::Apply,
        }
    };
    assert!(!sim.armed.load(SeqCst), "int3 hits are still diverted");
    m.leave(sim);
    end
}

/// A patch alone, and one on top of one that stays, in the place of another.
fn both(test: impl Fn(&Arena, &Image, bool)) {
    let arena = Arena::new(3);
    let spec = Spec { name: "demo", funcs: &[0, 1], after: &[], replaces: &[], mode: 1, modules: false, data: true };
    test(&arena, &image(&arena, 0, &spec), false);
    let spec =
        Spec { name: "demo", funcs: &[0, 1], after: &["low"], replaces: &["mid"], mode: 3, modules: false, data: true };
    test(&arena, &image(&arena, 0, &spec), true);
    // Of the functions, the last is one of a module.
    let spec = Spec { name: "demo", funcs: &[0, 1], after: &[], replaces: &[], mode: 3, modules: true, data: true };
    test(&arena, &image(&arena, 0, &spec), false);
}

/// Runs the life of the records as they are now, with the other patches below it if it wants them.
fn run(arena: &Arena, image: &Image, stacked: bool) -> End {
    let sim = kernel(arena, if stacked { 3 } else { 1 });
    let end = if stacked {
        // `low` has the first function, `mid` the second and another.
        let low = self::image(
            arena,
            1,
            &Spec { name: "low", funcs: &[0], after: &[], replaces: &[], mode: 2, modules: false, data: false },
        );
        let mid = self::image(
            arena,
            2,
            &Spec { name: "mid", funcs: &[1, 2], after: &[], replaces: &[], mode: 2, modules: false, data: false },
        );
        low.write(&low.bytes);
        mid.write(&mid.bytes);
        let (low, mid) = (low.sealed().expect("valid"), mid.sealed().expect("valid"));
        let (low, mid) = (Module::new(low, &sim.armed), Module::new(mid, &sim.armed));
        let none = Layers::new();
        for m in [&low, &mid] {
            let hold = |other| Err(Refusal::NoOther { other });
            assert_eq!(m.sites.prepare(&sim, &m.patch, &mut Layers::new(), hold), Ok(()));
            let mut frames = [0; 16];
            assert_eq!(operate(&sim, &mut m.machine(&sim, &none, &mut frames), m, &none, false), Step::Done);
        }
        let before = code(arena, &sim);
        let peer = |m| -> (Vec<u8>, Peer<'_, u64>) {
            let m: &Module<'_> = m;
            (m.patch.name.to_vec(), Peer { patch: m.patch, sites: &m.sites, shown: &[], board: &m.board })
        };
        let end = live(&sim, image, &RefCell::new([&low, &mid].map(peer).into()));
        // In the place of `mid`: where that was is the kernel's function, once all has been applied.
        let want = if end == End::Reverted {
            let mut kernel = code(arena, &kernel(arena, 3));
            kernel[0].clone_from(&before[0]);
            kernel
        } else {
            before
        };
        assert_eq!(code(arena, &sim), want, "{end:?}");
        for m in [&low, &mid] {
            // SAFETY: nobody is left who looks at them.
            unsafe { m.sites.clear(&sim) };
        }
        end
    } else {
        let before = code(arena, &sim);
        let end = live(&sim, image, &RefCell::default());
        assert_eq!(code(arena, &sim), before, "{end:?}");
        end
    };
    assert_eq!(sim.blocks(), 0, "memory is not given back");
    end
}

/// The old functions, and the code of the kernel module.
fn code(arena: &Arena, sim: &Sim) -> Vec<Vec<u8>> {
    let kernel = (0..FUNCS).map(|f| sim.get(arena.old(f), LEN as usize));
    let mut target = vec![0; 0x200];
    // It is not there where it has no part in it.
    sim.read(target_text(arena), &mut target);
    kernel.chain([target, sim.get(arena.constant(), CONTENT.len())]).collect()
}

#[test]
fn what_is_whole_is_applied_and_reverted() {
    both(|arena, image, stacked| {
        image.write(&image.bytes);
        assert_eq!(run(arena, image, stacked), End::Reverted);
    });
}

#[test]
fn every_byte_may_be_damaged() {
    both(|arena, image, stacked| {
        let mut ends = BTreeMap::<End, u64>::new();
        image.write(&image.bytes);
        let modules = image.record().n_holders != 0;
        for at in 0..image.bytes.len() {
            let is = image.bytes[at];
            let mut values = vec![0, 0xff, 0x7f, is ^ 1, is ^ 0x80, is.wrapping_add(8), is.wrapping_sub(1)];
            values.sort_unstable();
            values.dedup();
            for value in values.into_iter().filter(|v| *v != is) {
                let mut bytes = image.bytes.clone();
                bytes[at] = value;
                image.write(&bytes);
                let told = Told(format!("byte {at} is {value:#x} and not {is:#x}"));
                *ends.entry(run(arena, image, stacked)).or_default() += 1;
                drop(told);
            }
        }
        println!("{ends:?}");
        assert!(ends.len() == if modules { 6 } else { 5 }, "some checks are never reached: {ends:?}");
    });
}

/// Whatever a byte of the records means, a change of it is noticed without anything being done with them. Left to the comparison
/// with the kernel's code are the bytes expected at a site, which the module loader completes.
#[test]
fn every_byte_counts() {
    both(|_, image, _| {
        image.write(&image.bytes);
        let sealed = image.sealed().expect("valid").record.digest;
        let mut whole = image.bytes.clone();
        let at = std::mem::offset_of!(PatchRecord, digest);
        whole[at..at + 8].copy_from_slice(&sealed.to_le_bytes());
        let original = size_of::<PatchRecord>() + std::mem::offset_of!(FuncRecord, original);
        let mut expected: Vec<_> =
            (0..2).map(|f| original + f * size_of::<FuncRecord>()).map(|o| o..o + SITE.len()).collect();
        // And both contents of a constant.
        let contents = (image.record().data - image.at) as usize;
        expected.push(contents - CONTENT.len() * 2..contents);
        // Zeros before the strings fill up to an address that is a multiple of 8.
        let name = image.bytes.windows(5).rposition(|w| w == b"demo\0").expect("its name");
        let fill = (8 - (image.bytes.len() - name) % 8) % 8;
        for at in (0..name - fill).chain(name..whole.len()) {
            for bit in [0, 3, 7] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                image.write(&bytes);
                // SAFETY: the memory stays, and is written again only when nobody refers to it.
                let noticed = unsafe { Patch::new(image.record(), &image.own) }.is_err();
                assert!(noticed || expected.iter().any(|e| e.contains(&at)), "byte {at}, bit {bit}");
            }
        }
    });
}

#[test]
fn much_may_be_damaged() {
    let env = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (seed, n) = (env("LPBUILD_SEED").unwrap_or(1), env("LPBUILD_DAMAGES").unwrap_or(1_500));
    both(|arena, image, stacked| {
        let mut ends = BTreeMap::<End, u64>::new();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: usize| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            ((state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % below as u64) as usize
        };
        let (len, own) = (image.bytes.len(), image.own);
        for turn in 0..n {
            let mut bytes = image.bytes.clone();
            for _ in 0..=random(3) {
                let width = [1, 1, 2, 4, 8, 8][random(6)];
                let at = random(len / width) * width;
                // Something from elsewhere in the records, an address that the module has, or one that it has not.
                let from = random(len - 8);
                let word = u64::from_le_bytes(image.bytes[from..from + 8].try_into().unwrap_or_default());
                let value = match random(8) {
                    0 | 1 => word,
                    2 => own.data + random(PAGE + 32) as u64,
                    3 => own.code + random(PAGE + 32) as u64,
                    4 => image.at + random(len) as u64 / 8 * 8,
                    5 => [0, 1, 7, 0x8000_0000, u64::MAX, u64::MAX - 8, 1 << 63][random(7)],
                    6 => arena.old(random(FUNCS)) + random(LEN as usize) as u64,
                    _ => random(1 << 32) as u64,
                };
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            image.write(&bytes);
            let told = Told(format!("LPBUILD_SEED={seed}, damage {turn}, stacked {stacked}"));
            *ends.entry(run(arena, image, stacked)).or_default() += 1;
            drop(told);
        }
        println!("{ends:?}");
    });
}

/// Says which damage it was when the test fails in its life.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}
