//! A function of a kernel module: joined, detached, and everything that must keep it from being joined.

use lpbuild_abi::{
    AnchorKind, AnchorRecord, FieldKind, FuncRecord, HolderRecord, LateReloc, MAX_SITE, PatchRecord, RangeRecord,
    Region,
};
use lpbuild_runtime::{
    board::Board,
    holders::{Holders, Joining, Presence, named},
    layers::{Layers, Peer},
    record::Patch,
    refusal::Refusal,
    site::{Diverted, INT3, Route, divert},
    sites::{SiteSet, Sites},
};

use crate::sim::{Everything, FakeModule, Fixture, LEN, NEW, OLD, SITE, Sim};

/// The module: its `struct module`, and its memory.
const MODULE: usize = 0xffff_ffff_a000_0000;
const TEXT: u64 = 0xffff_ffff_a001_0000;
const RODATA: u64 = 0xffff_ffff_a002_0000;
const DATA: u64 = 0xffff_ffff_a003_0000;
const PERCPU: u64 = 0x2_0000;
/// One that it needs.
const EXPORTER: usize = 0xffff_ffff_a800_0000;
/// The function is here in the section that the symbol is in.
const AT: u64 = 0x100;
/// What is carried for it: fields in the code, data, zeros, constants.
const FIELD: u64 = NEW + 0x20;
const STUB: u64 = NEW + 0x60;
/// A jump of a key of the module.
const JUMP: u64 = NEW + 0x40;
const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];
const BROUGHT: u64 = NEW + 0x8000;
/// Its entry.
const ENTRY: u64 = BROUGHT + 16;
/// A static call of the module, and its entry.
const CALL: u64 = NEW + 0x48;
const SITE_OF_CALL: u64 = BROUGHT + 32;
/// A jump of a key that is constant behind the init of the module, and its entry.
const SETTLED: u64 = NEW + 0x50;
const SETTLED_ENTRY: u64 = BROUGHT + 40;
/// Keys of the module.
const KEY: u64 = DATA + 0x60;
const CALL_KEY: u64 = DATA + 0x58;
const CONSTANT_KEY: u64 = 0xffff_ffff_a004_0010;
const ZEROS: u64 = NEW + 0x9000;
const CONSTANTS: u64 = NEW + 0xa000;

const NONE: Joining = Joining { route: Route::Original, trapped: false };

struct Modules {
    f: Fixture,
    holders: Vec<HolderRecord>,
    anchors: Vec<AnchorRecord>,
    relocs: Vec<LateReloc>,
}

fn anchor(owner: u32, kind: AnchorKind, region: Region) -> AnchorRecord {
    AnchorRecord {
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
    }
}

fn reloc(at: u64, anchor: u32, kind: FieldKind, addend: i64) -> LateReloc {
    LateReloc { at, addend, anchor, site_of: 0, stub: 0, kind: kind as u8, zero: [0; 7] }
}

/// An entry of a jump as the loader of the patch has left it.
fn entry_at(at: u64, code: u64, target: u64) -> Vec<u8> {
    let distance = |to: u64, at: u64| (to.wrapping_sub(at) as u32).to_le_bytes();
    [distance(code, at), distance(target, at + 4), [0; 4], [0; 4]].concat()
}

fn entry(code: u64, target: u64) -> Vec<u8> {
    entry_at(ENTRY, code, target)
}

/// That of a static call.
fn call_site(code: u64) -> Vec<u8> {
    [(code.wrapping_sub(SITE_OF_CALL) as u32).to_le_bytes(), [0; 4]].concat()
}

fn note(id: u8) -> Vec<u8> {
    [4u32, 20, 3].iter().flat_map(|n| n.to_le_bytes()).chain(*b"GNU\0").chain([id; 20]).collect()
}

impl Modules {
    /// A patch whose only function is one of the module `target`, which is here, and which needs `exporter`.
    fn new() -> Box<Self> {
        let mut f = Fixture::new(2, 1);
        let mut site = [0; MAX_SITE];
        // The second instruction has a field that refers to the module's data.
        site[..SITE.len()].copy_from_slice(&SITE);
        site[4..8].fill(0);
        f.funcs[0] = FuncRecord { old: AT, anchor: 1, original: site, ..std::mem::replace(&mut f.funcs[0], blank()) };
        f.ranges[0] = RangeRecord { start: AT, len: LEN, func: 0, anchor: 1, zero: 0 };
        let holder = |name: &'static std::ffi::CStr, n: [u32; 4]| HolderRecord {
            name: name.as_ptr() as u64,
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
            build_id: std::array::from_fn(|i| if i < 20 { 9 } else { 0 }),
            n_funcs: n[0],
            n_ranges: n[1],
            n_anchors: n[2],
            n_relocs: n[3],
            build_id_len: 20,
            zero: [0; 7],
        };
        let target = HolderRecord {
            data: BROUGHT,
            data_end: BROUGHT + 56,
            jumps: ENTRY,
            jumps_end: ENTRY + 16,
            calls: SITE_OF_CALL,
            calls_end: SITE_OF_CALL + 8,
            sealed: SETTLED_ENTRY,
            sealed_end: SETTLED_ENTRY + 16,
            bss: ZEROS,
            bss_end: ZEROS + 8,
            rodata: CONSTANTS,
            rodata_end: CONSTANTS + 8,
            needs: 2,
            ..holder(c"target", [1, 1, 6, 11])
        };
        let text = AnchorRecord {
            name: c"twice".as_ptr() as u64,
            position: 1,
            count: 2,
            delta: 0x40,
            witness: c"once".as_ptr() as u64,
            witness_delta: 0x80,
            witness_count: 1,
            ..anchor(0, AnchorKind::Symbol, Region::Text)
        };
        let data =
            AnchorRecord { name: c"variable".as_ptr() as u64, count: 1, ..anchor(0, AnchorKind::Symbol, Region::Data) };
        // Constants that no symbol shows: the loader has filled in a distance in the code, from behind the field, 8 bytes into them.
        let strings = AnchorRecord {
            at: 0x1f0,
            delta: 8 - 4,
            field: FieldKind::Pc32 as u8,
            size: 0x100,
            ..anchor(0, AnchorKind::Field, Region::Rodata)
        };
        let percpu = AnchorRecord { size: 0x40, ..anchor(0, AnchorKind::Percpu, Region::Percpu) };
        let this = AnchorRecord { size: 0x40, ..anchor(0, AnchorKind::Module, Region::Data) };
        let sealed = AnchorRecord {
            name: c"sealed".as_ptr() as u64,
            count: 1,
            size: 0x40,
            ..anchor(0, AnchorKind::Symbol, Region::RoAfterInit)
        };
        let exported =
            AnchorRecord { name: c"exported".as_ptr() as u64, count: 1, ..anchor(1, AnchorKind::Symbol, Region::Text) };
        let original = f.funcs[0].original.as_ptr() as u64;
        let mut relocs = vec![
            LateReloc { stub: STUB, ..reloc(FIELD, 0, FieldKind::Plt32, 0x10 - 4) },
            reloc(FIELD + 8, 1, FieldKind::Abs32S, 0x20),
            reloc(FIELD + 12, 3, FieldKind::Abs32, 4),
            reloc(FIELD + 16, 2, FieldKind::Pc32, 0x30 - 4),
            reloc(CALL + 1, 0, FieldKind::Plt32, 0x20 - 4),
            reloc(BROUGHT + 8, 6, FieldKind::Abs64, 0),
            reloc(ENTRY + 8, 1, FieldKind::Pc64, 0x61),
            reloc(SITE_OF_CALL + 4, 1, FieldKind::Pc32, 0x58),
            reloc(SETTLED_ENTRY + 8, 5, FieldKind::Pc64, 0x10),
            reloc(CONSTANTS, 4, FieldKind::Abs64, 0),
            LateReloc { site_of: 1, ..reloc(original + 4, 1, FieldKind::Pc32, 0x50 - 4) },
        ];
        relocs.sort_by_key(|r| r.at);
        let mut it = Box::new(Self {
            f,
            holders: vec![target, holder(c"exporter", [0, 0, 1, 0])],
            anchors: vec![text, data, strings, percpu, this, sealed, exported],
            relocs,
        });
        let (holders, anchors, relocs) = (it.holders.as_ptr(), it.anchors.as_ptr(), it.relocs.as_ptr());
        let r = &mut it.f.record;
        (r.holders, r.anchors, r.relocs) = (holders as u64, anchors as u64, relocs as u64);
        (r.n_holders, r.n_anchors, r.n_relocs) = (2, 7, 11);
        (r.n_kernel_funcs, r.n_kernel_ranges) = (0, 0);
        it.arrive();
        it
    }

    fn sim(&self) -> &Sim {
        &self.f.sim
    }
    /// Both modules are here, and what is carried is as the loader of the patch has left it.
    fn arrive(&self) {
        let sim = self.sim();
        let mut text = vec![0x90; 0x200];
        text[AT as usize + 5..][..SITE.len()].copy_from_slice(&SITE);
        let place = TEXT + AT + 5 + 4;
        let distance = (DATA + 0x50 - 4).wrapping_sub(place) as u32;
        text[AT as usize + 9..][..4].copy_from_slice(&distance.to_le_bytes());
        let strings = (RODATA + 0x40 + 8 - 4).wrapping_sub(TEXT + 0x1f0) as u32;
        text[0x1f0..0x1f4].copy_from_slice(&strings.to_le_bytes());
        sim.put(TEXT, &text);
        let mut rodata = vec![0; 0x200];
        // Behind the end of the piece that is read at once.
        rodata[0xf4..][..36].copy_from_slice(&note(9));
        sim.put(RODATA, &rodata);
        sim.put(DATA, &[0; 0x400]);
        sim.put(EXPORTER as u64, &note(9));
        sim.put(CONSTANT_KEY - 0x10, &[0; 0x40]);
        sim.put(NEW, &[0; 0x100]);
        sim.put(BROUGHT, &[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.loaded();
        sim.put(ZEROS, &[0; 8]);
        sim.put(CONSTANTS, &[0; 8]);
        let mut w = sim.world();
        w.own_code.push(NEW..NEW + 0x1_0000);
        w.unborn.push(TEXT..TEXT + 0x200);
        w.modules.insert(
            MODULE,
            FakeModule {
                name: "target",
                symbols: vec![
                    ("twice", RODATA),
                    ("once", TEXT + 0x80),
                    ("twice", TEXT + 0x40),
                    ("variable", DATA),
                    ("sealed", CONSTANT_KEY - 0x10),
                ],
                regions: [
                    (TEXT, 0x200),
                    (RODATA, 0x200),
                    (CONSTANT_KEY - 0x10, 0x40),
                    (MODULE as u64, 0x4_0000),
                    (PERCPU, 0x40),
                ],
            },
        );
        w.modules.insert(
            EXPORTER,
            FakeModule {
                name: "exporter",
                symbols: vec![("exported", EXPORTER as u64 + 0x1000)],
                regions: [(EXPORTER as u64 + 0x1000, 0x400), (EXPORTER as u64, 36), (0, 0), (0, 0), (0, 0)],
            },
        );
    }
    /// What the kernel turns is as the loader of the patch has left it.
    fn loaded(&self) {
        let sim = self.sim();
        sim.put(JUMP, &NOP);
        sim.put(CALL, &[0xe8, 1, 2, 3, 4]);
        sim.put(SETTLED, &[0x66, 0x90]);
        sim.put(ENTRY, &entry(JUMP, JUMP + 0x10));
        sim.put(SITE_OF_CALL, &call_site(CALL));
        sim.put(SETTLED_ENTRY, &entry_at(SETTLED_ENTRY, SETTLED, SETTLED + 8));
    }
    fn patch(&self) -> Patch<'_> {
        // SAFETY: vectors and strings behind the addresses live as long as this.
        unsafe { Patch::unsealed(&self.f.record, &Everything) }.expect("valid")
    }
    fn prepared(&self) -> Holders<u64> {
        let mut all = Holders::new();
        all.prepare(self.sim(), &self.patch()).expect("there is memory");
        all
    }
    /// The bytes at the site.
    fn site(&self) -> Vec<u8> {
        self.sim().get(TEXT + AT + 5, SITE.len())
    }
    fn word(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.sim().get(at, 8).try_into().expect("8 bytes"))
    }
    fn half(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.sim().get(at, 4).try_into().expect("4 bytes"))
    }
    fn clear(&self, mut all: Holders<u64>) {
        // SAFETY: nobody refers to it any more.
        unsafe { all.clear(self.sim()) };
        assert_eq!(self.sim().blocks(), 0, "memory is not given back");
        assert_eq!(self.sim().world().views, 0, "views are not given back");
    }
    /// Joining is refused, and the module is as it was.
    fn refused(&self) -> Refusal {
        let (before, mut all) = (self.sim().get(TEXT, 0x200), self.prepared());
        let views = self.sim().world().views;
        let why = all.join(self.sim(), &self.patch(), 0, MODULE, NONE, false).expect_err("refused");
        assert_eq!(all.presence(0), Presence::Refused(why));
        assert_eq!(self.sim().get(TEXT, 0x200), before);
        // SAFETY: nothing is given back yet.
        unsafe {
            assert!(all.shown()[0].get().is_empty(), "{why:?}");
            assert!(!all.located()[0].has(TEXT + AT), "{why:?}");
        }
        assert_eq!(self.sim().world().views, views, "{why:?}: views are not given back");
        // What comes next may be the right one.
        assert!(!all.going(self.sim(), 0, NONE));
        assert_eq!(all.presence(0), Presence::Waiting);
        self.clear(all);
        why
    }
}

/// What happens to the records.
type Change<'c> = dyn Fn(&mut PatchRecord, &mut Vec<HolderRecord>, &mut [AnchorRecord], &mut [LateReloc]) + 'c;

fn blank() -> FuncRecord {
    FuncRecord {
        old: 0,
        new: 0,
        name: 0,
        old_size: 0,
        new_size: 0,
        site_offset: 0,
        site_size: 0,
        jump_kind: 0,
        covers_fentry: 0,
        original: [0; MAX_SITE],
        single: 0,
        resume: 0,
        dispatch: 0,
        anchor: 0,
        zero: 0,
    }
}

fn jump() -> Vec<u8> {
    let next = TEXT + AT + 5 + 5;
    let rel = (NEW.wrapping_sub(next)) as u32;
    [&[0xe9][..], &rel.to_le_bytes(), &[0x0f, 0x1f, 0x00]].concat()
}

#[test]
fn a_module_that_comes_gets_what_the_others_hold() {
    for (route, trapped, first) in [
        (Route::Original, false, SITE[0]),
        (Route::Original, true, INT3),
        (Route::New, false, 0xe9),
        (Route::New, true, INT3),
    ] {
        let m = Modules::new();
        let (patch, mut all, before) = (m.patch(), m.prepared(), m.site());
        let at = Joining { route, trapped };
        assert_eq!(all.presence(0), Presence::Waiting);
        assert_eq!((named(&patch, b"target"), named(&patch, b"exporter"), named(&patch, b"x")), (Some(0), None, None));
        assert_eq!(all.join(m.sim(), &patch, 0, MODULE, at, false), Ok(()));
        assert!(all.is_here(0, MODULE));
        let rest = if route == Route::New { jump() } else { before.clone() };
        assert_eq!((m.site()[0], &m.site()[1..]), (first, &rest[1..]), "{at:?}");
        // Every field, of each kind.
        assert_eq!(m.half(FIELD), (TEXT + 0x10 - 4).wrapping_sub(FIELD) as u32);
        assert_eq!(m.half(FIELD + 8), (DATA + 0x20) as u32);
        assert_eq!(m.half(FIELD + 12), PERCPU as u32 + 4);
        assert_eq!(m.half(FIELD + 16), (RODATA + 0x40 + 0x30 - 4).wrapping_sub(FIELD + 16) as u32);
        assert_eq!(m.word(BROUGHT + 8), EXPORTER as u64 + 0x1000);
        assert_eq!(m.word(CONSTANTS), MODULE as u64);
        // SAFETY: nothing is given back yet.
        let (shown, located) = unsafe { (all.shown(), all.located()) };
        assert_eq!(shown[0].get()[0].addr, TEXT + AT + 5);
        assert!(located[0].has(TEXT + AT + u64::from(LEN)) && !located[0].has(TEXT + AT - 1));
        // Joining is done once.
        assert_eq!(all.join(m.sim(), &patch, 0, MODULE, Joining { route: Route::New, trapped: false }, false), Ok(()));
        assert_eq!(m.site()[0], first);
        // It goes: as it was, and seen by nobody.
        assert!(!all.going(m.sim(), 0, at));
        let diverted = divert(m.sim(), SiteSet::new(&[], shown), false, TEXT + AT + 6);
        let ours = Diverted::To(NEW);
        assert_eq!(
            diverted,
            if route == Route::New {
                ours
            } else if trapped {
                Diverted::NotOurs
            } else {
                Diverted::Again(TEXT + AT + 5)
            }
        );
        all.gone(m.sim(), &patch, 0, at);
        assert_eq!(m.site(), before);
        assert!(shown[0].get().is_empty());
        assert!(!located[0].has(TEXT + AT), "what comes to be there is somebody else's");
        // It may not come again before nobody can be looking at what is written then.
        m.sim().world().story.clear();
        assert_eq!(all.join(m.sim(), &patch, 0, MODULE, at, false), Ok(()));
        assert_eq!(all.presence(0), Presence::Leaving);
        all.left(m.sim(), &patch, 0);
        assert_eq!(m.sim().world().story, ["synchronize"]);
        assert_eq!(all.presence(0), Presence::Waiting);
        m.clear(all);
    }
}

#[test]
fn what_is_brought_begins_anew_whenever_the_module_comes() {
    let m = Modules::new();
    let (patch, mut all) = (m.patch(), m.prepared());
    for turn in 0..3 {
        assert_eq!(all.join(m.sim(), &patch, 0, MODULE, NONE, false), Ok(()), "{turn}");
        assert_eq!(m.sim().get(BROUGHT, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(m.sim().get(ZEROS, 8), [0; 8]);
        m.sim().put(BROUGHT, &[0xff; 16]);
        m.sim().put(ZEROS, &[0xff; 8]);
        assert!(!all.going(m.sim(), 0, NONE));
        all.gone(m.sim(), &patch, 0, NONE);
        all.left(m.sim(), &patch, 0);
    }
    // Which section of the patch comes first in memory is the loader's business.
    let mut other = Modules::new();
    let site = other.relocs.iter().position(|r| r.site_of != 0).expect("there is one");
    let moved = other.relocs.remove(site);
    other.relocs.insert(if site == 0 { 10 } else { 0 }, moved);
    assert_eq!(other.patch().relocs.len(), 11);
    // Behind the end of the patch nothing is done any more.
    all.close();
    assert_eq!(all.join(m.sim(), &patch, 0, MODULE, NONE, false), Ok(()));
    assert_eq!(all.presence(0), Presence::Waiting);
    m.clear(all);
}

#[test]
fn another_build_of_the_module() {
    let other = Refusal::OtherModule { holder: 0 };
    let m = Modules::new();
    m.sim().put(RODATA + 0xf4, &note(8));
    assert_eq!(m.refused(), other);
    let mut all = m.prepared();
    assert_eq!(all.join(m.sim(), &m.patch(), 0, MODULE, NONE, false), Err(other));
    assert_eq!(all.found_id(0), [8; 20]);
    m.clear(all);
    // Not once, but twice.
    let m = Modules::new();
    m.sim().put(RODATA + 0x1c0, &note(9));
    assert_eq!(m.refused(), other);
    // None at all.
    let m = Modules::new();
    m.sim().put(RODATA + 0xf4, &[0; 36]);
    assert_eq!(m.refused(), other);
    // Of the one that it needs.
    let m = Modules::new();
    m.sim().put(EXPORTER as u64, &note(8));
    assert_eq!(m.refused(), Refusal::OtherModule { holder: 1 });
}

#[test]
fn sections_that_are_not_where_they_should_be() {
    let unresolved = |holder, anchor| Refusal::Unresolved { holder, anchor };
    let change = |f: &dyn Fn(&mut FakeModule)| {
        let m = Modules::new();
        f(m.sim().world().modules.get_mut(&MODULE).expect("it is here"));
        m.refused()
    };
    // Another number of symbols of the name, and a second symbol that says something else.
    assert_eq!(change(&|m| m.symbols.push(("twice", TEXT))), unresolved(0, 0));
    assert_eq!(change(&|m| _ = m.symbols.remove(0)), unresolved(0, 0));
    assert_eq!(change(&|m| m.symbols[1].1 += 8), unresolved(0, 0));
    // The section does not lie in its part of the module.
    assert_eq!(change(&|m| m.regions[0].1 -= 1), unresolved(0, 0));
    assert_eq!(change(&|m| m.symbols[3].1 = MODULE as u64 + 0x4_0000 - 0x1ff), unresolved(0, 1));
    assert_eq!(change(&|m| m.regions[4].1 = 0x3f), unresolved(0, 3));
    assert_eq!(change(&|m| m.regions[3].0 += 8), unresolved(0, 4));
    // A field that leads elsewhere.
    let m = Modules::new();
    m.sim().put(TEXT + 0x1f0, &[0xff; 4]);
    assert_eq!(m.refused(), unresolved(0, 2));
    // The one it needs is not here.
    let m = Modules::new();
    m.sim().world().modules.remove(&EXPORTER);
    assert_eq!(m.refused(), unresolved(1, 6));
}

#[test]
fn sites_that_are_somebody_elses() {
    let m = Modules::new();
    m.sim().put(TEXT + AT + 6, &[0x90]);
    assert_eq!(m.refused(), Refusal::Altered { func: 0 });
    // The field among the bytes is what the loader has made of it.
    let m = Modules::new();
    m.sim().put(TEXT + AT + 9, &[0; 4]);
    assert_eq!(m.refused(), Refusal::Altered { func: 0 });
    let m = Modules::new();
    m.sim().world().probes.push(TEXT + AT + 5);
    assert_eq!(m.refused(), Refusal::Probed { func: 0, addr: TEXT + AT + 5 });
    let m = Modules::new();
    m.sim().put(TEXT + AT + 5, &[0xe9, 0, 0, 0, 0]);
    assert_eq!(m.refused(), Refusal::AlreadyPatched { func: 0, target: TEXT + AT + 10 });
}

#[test]
fn what_another_has_written_is_left_alone() {
    let m = Modules::new();
    let (patch, mut all) = (m.patch(), m.prepared());
    let at = Joining { route: Route::New, trapped: false };
    assert_eq!(all.join(m.sim(), &patch, 0, MODULE, at, false), Ok(()));
    let other = [0xe9, 1, 2, 3, 4, 0x0f, 0x1f, 0];
    m.sim().put(TEXT + AT + 5, &other);
    assert!(!all.going(m.sim(), 0, at));
    all.gone(m.sim(), &patch, 0, at);
    assert_eq!(m.site(), other);
    all.left(m.sim(), &patch, 0);
    m.clear(all);
}

#[test]
fn far_away_a_branch_leads_to_a_jump_and_everything_else_is_refused() {
    let m = Modules::new();
    let far = |m: &Modules| {
        let mut w = m.sim().world();
        let it = w.modules.get_mut(&EXPORTER).expect("it is here");
        (it.symbols[0].1, it.regions[0].0) = (0x1234_5678_9000, 0x1234_5678_9000);
    };
    far(&m);
    let (patch, mut all) = (m.patch(), m.prepared());
    // An address of 8 bytes reaches everything.
    assert_eq!(all.join(m.sim(), &patch, 0, MODULE, NONE, false), Ok(()));
    assert!(!all.going(m.sim(), 0, NONE));
    all.gone(m.sim(), &patch, 0, NONE);
    all.left(m.sim(), &patch, 0);
    m.clear(all);
    // A branch to it does not, and has a jump; with none it is refused.
    let mut m = Modules::new();
    far(&m);
    m.relocs.iter_mut().filter(|r| r.at == FIELD).for_each(|r| (r.anchor, r.addend) = (6, 0x10 - 4));
    let (patch, mut all) = (m.patch(), m.prepared());
    assert_eq!(all.join(m.sim(), &patch, 0, MODULE, NONE, false), Ok(()));
    assert_eq!(m.half(FIELD), (STUB - 4).wrapping_sub(FIELD) as u32);
    let want = [&[0x48, 0xb8][..], &0x1234_5678_9010u64.to_le_bytes(), &[0xff, 0xe0]].concat();
    assert_eq!(m.sim().get(STUB, 12), want);
    m.clear({
        assert!(!all.going(m.sim(), 0, NONE));
        all.gone(m.sim(), &patch, 0, NONE);
        all.left(m.sim(), &patch, 0);
        all
    });
    m.relocs.iter_mut().filter(|r| r.at == FIELD).for_each(|r| r.stub = 0);
    m.loaded();
    assert_eq!(m.refused(), Refusal::TooFar { holder: 0 });
    let mut m = Modules::new();
    far(&m);
    m.relocs.iter_mut().filter(|r| r.at == FIELD + 8).for_each(|r| r.anchor = 6);
    assert_eq!(m.refused(), Refusal::TooFar { holder: 0 });
}

#[test]
fn every_rule_of_the_records_of_modules() {
    let rejected = |change: &Change<'_>| {
        let mut m = Modules::new();
        let it = &mut *m;
        change(&mut it.f.record, &mut it.holders, &mut it.anchors, &mut it.relocs);
        // SAFETY: vectors and strings behind the addresses live as long as this.
        match unsafe { Patch::unsealed(&m.f.record, &Everything) } {
            Err(Refusal::BadRecord(rule)) => rule,
            other => panic!("accepted, or refused for another reason: {:?}", other.err()),
        }
    };
    assert_eq!(rejected(&|p, _, _, _| p.n_holders = 64), "number of modules, of their sections, or of fields");
    assert_eq!(rejected(&|p, _, _, _| p.holders = 0), "a missing address");
    assert_eq!(rejected(&|p, _, _, _| p.n_holders = 0), "an address of nothing");
    assert_eq!(rejected(&|p, _, _, _| p.zero = 1), "bytes of no use");
    assert_eq!(rejected(&|p, _, _, _| p.relocs += 4), "a misaligned array");
    for change in [
        |p: &mut PatchRecord| p.n_kernel_funcs = 1,
        |p: &mut PatchRecord| p.n_kernel_ranges = 1,
        |p: &mut PatchRecord| p.n_anchors = 5,
        |p: &mut PatchRecord| p.n_relocs = 6,
    ] {
        assert_eq!(rejected(&|p, _, _, _| change(p)), "the sums of what belongs to each module");
    }
    let other = [c"other".as_ptr() as u64];
    let on_top = |p: &mut PatchRecord| (p.after, p.n_after) = (other.as_ptr() as u64, 1);
    assert_eq!(rejected(&|p, _, _, _| on_top(p)), "functions of modules, together with other patches");
    let kernels = |p: &mut PatchRecord, h: &mut Vec<HolderRecord>| {
        (p.n_kernel_funcs, p.n_kernel_ranges, h[0].n_funcs, h[0].n_ranges) = (1, 1, 0, 0);
    };
    assert_eq!(rejected(&|p, h, _, _| kernels(p, h)), "a function of the kernel in a module");
    assert_eq!(rejected(&|_, h, _, _| h[1].name = h[0].name), "a module named twice");
    assert_eq!(rejected(&|_, h, _, _| h[1].build_id_len = 0), "length of the build id");
    assert_eq!(rejected(&|_, h, _, _| h[0].build_id[31] = 1), "bytes behind the build id");
    assert_eq!(rejected(&|_, h, _, _| h[0].zero[6] = 1), "bytes of no use");
    for needs in [1, 4, 1 << 63] {
        assert_eq!(rejected(&|_, h, _, _| h[0].needs = needs), "a module that is needed and is none of the others");
    }
    assert_eq!(rejected(&|_, h, _, _| h[1].needs = 1), "something for a module without functions");
    for change in [
        |h: &mut HolderRecord| h.data = 0,
        |h: &mut HolderRecord| h.data_end = h.data,
        |h: &mut HolderRecord| h.bss += 4,
    ] {
        assert_eq!(
            rejected(&|_, h, _, _| change(&mut h[0])),
            "something outside of the module, that it brings for another"
        );
    }
    assert_eq!(rejected(&|_, h, _, _| h[0].bss = h[0].data), "something that is brought for two");
    assert_eq!(rejected(&|_, h, _, _| (h[0].bss, h[0].bss_end) = (NEW, NEW + 8)), "something that is brought for two");
    for change in [
        |a: &mut AnchorRecord| a.owner = 1,
        |a: &mut AnchorRecord| a.size = 0,
        |a: &mut AnchorRecord| a.region = Region::Percpu as u8,
    ] {
        assert_eq!(rejected(&|_, _, a, _| change(&mut a[1])), "a section of another module");
    }
    for change in [
        |a: &mut AnchorRecord| a.position = a.count,
        |a: &mut AnchorRecord| a.name = 0,
        |a: &mut AnchorRecord| a.delta = -1,
        |a: &mut AnchorRecord| a.witness_count = 0,
        |a: &mut AnchorRecord| a.witness = 0,
    ] {
        assert_eq!(rejected(&|_, _, a, _| change(&mut a[0])), "a symbol by which a section is found");
    }
    for change in [
        |a: &mut AnchorRecord| a.of = 2,
        |a: &mut AnchorRecord| a.of = 3,
        |a: &mut AnchorRecord| a.at = 0x1fd,
        |a: &mut AnchorRecord| a.at = -1,
        |a: &mut AnchorRecord| a.field = 7,
        |a: &mut AnchorRecord| a.delta = 1 << 31,
    ] {
        assert_eq!(rejected(&|_, _, a, _| change(&mut a[2])), "a field by which a section is found");
    }
    assert_eq!(rejected(&|_, _, a, _| a[3].delta = 1), "bytes of no use");
    assert_eq!(rejected(&|_, _, a, _| a[0].kind = 5), "unknown anchor");
    assert_eq!(rejected(&|_, _, a, _| a[0].size = AT as u32 + LEN - 1), "a function outside of its module's code");
    assert_eq!(rejected(&|_, _, a, _| a[0].region = Region::Data as u8), "a function outside of its module's code");
    for change in [
        |h: &mut HolderRecord| h.jumps = 0,
        |h: &mut HolderRecord| h.jumps_end = h.jumps,
        |h: &mut HolderRecord| h.jumps_end = h.data_end + 16,
        |h: &mut HolderRecord| h.jumps_end -= 8,
        |h: &mut HolderRecord| (h.jumps, h.jumps_end) = (h.jumps - 4, h.jumps_end - 4),
        |h: &mut HolderRecord| (h.jumps, h.jumps_end) = (h.data - 16, h.data),
        |h: &mut HolderRecord| (h.data, h.data_end, h.jumps_end) = (0, 0, h.jumps + 16),
        |h: &mut HolderRecord| h.calls = 0,
        |h: &mut HolderRecord| h.calls_end = h.calls,
        |h: &mut HolderRecord| h.calls_end -= 4,
        |h: &mut HolderRecord| (h.calls, h.calls_end) = (h.data_end, h.data_end + 8),
        |h: &mut HolderRecord| h.sealed = 0,
        |h: &mut HolderRecord| h.sealed_end = h.sealed + 8,
        |h: &mut HolderRecord| h.sealed_end += 16,
    ] {
        let rule = rejected(&|_, h, _, _| change(&mut h[0]));
        let outside = "jumps of keys, or static calls, outside of what is brought for the module";
        assert!([outside, "a field outside of what is carried"].contains(&rule), "{rule}");
    }
    // A field too few, one too many, one of another kind, and one of what nobody writes to.
    let none = "a jump, or a static call, of no key of the module";
    let (key, call_key, constant_key) = (7, 8, 9);
    assert_eq!(rejected(&|_, _, _, r| r[key].at -= 8), none);
    assert_eq!(rejected(&|_, h, _, _| h[0].jumps -= 16), none);
    assert_eq!(rejected(&|_, _, _, r| r[key].kind = FieldKind::Abs64 as u8), none);
    assert_eq!(rejected(&|_, _, a, _| a[1].region = Region::RoAfterInit as u8), none);
    assert_eq!(rejected(&|_, _, _, r| (r[key - 1].at, r[key - 1].anchor) = (ENTRY, 1)), none);
    assert_eq!(rejected(&|_, _, _, r| r[call_key].at -= 4), none);
    assert_eq!(rejected(&|_, _, _, r| r[call_key].kind = FieldKind::Abs32S as u8), none);
    assert_eq!(rejected(&|_, _, _, r| r[call_key].anchor = 5), none);
    // A key of another module: that may go, and nobody takes the jump out of its list.
    assert_eq!(rejected(&|_, _, _, r| r[key].anchor = 6), none);
    let others = |a: &mut [AnchorRecord], r: &mut LateReloc, region: Region| {
        (a[6].region, r.anchor) = (region as u8, 6);
    };
    assert_eq!(rejected(&|_, _, a, r| others(a, &mut r[key], Region::Data)), none);
    assert_eq!(rejected(&|_, _, a, r| others(a, &mut r[call_key], Region::Data)), none);
    assert_eq!(rejected(&|_, _, a, r| others(a, &mut r[constant_key], Region::RoAfterInit)), none);
    // One that is written to later is not among those that are taken back early, and the other way round.
    assert_eq!(rejected(&|_, _, _, r| r[constant_key].anchor = 1), none);
    assert_eq!(rejected(&|_, _, _, r| r[key].anchor = 5), none);
    // Two tables in the same place.
    assert_eq!(rejected(&|_, h, _, _| (h[0].calls, h[0].calls_end) = (ENTRY + 8, ENTRY + 16)), none);
    assert_eq!(rejected(&|_, h, _, _| (h[0].sealed, h[0].sealed_end) = (h[0].jumps, h[0].jumps_end)), none);
    let last = 3;
    assert_eq!(rejected(&|_, _, _, r| r[last].kind = 7), "unknown field");
    assert_eq!(rejected(&|_, _, _, r| r[last].at = OLD), "a field outside of what is carried");
    assert_eq!(rejected(&|_, _, _, r| r[last].at = ZEROS), "a field outside of what is carried");
    assert_eq!(rejected(&|_, _, _, r| r.swap(last, last - 1)), "the order of the fields");
    assert_eq!(rejected(&|_, _, _, r| r[last].site_of = 2), "a field at a site of another module");
    assert_eq!(rejected(&|_, _, _, r| r[last].anchor = 7), "a field that refers to nothing");
    assert_eq!(rejected(&|_, h, _, _| h[0].needs = 0), "a field that refers to nothing");
    assert_eq!(rejected(&|_, _, _, r| r[last].addend = 1 << 31), "a field that refers to nothing");
    assert_eq!(rejected(&|_, _, _, r| r[last].stub = STUB), "a jump for a field that needs none");
}

/// The kernel sorts and marks the entries, and turns the code: neither is there when it gets them again.
#[test]
fn the_jumps_of_its_keys_and_its_static_calls_begin_anew_with_each_coming() {
    let m = Modules::new();
    let (sim, mut all) = (m.sim(), m.prepared());
    for turn in 0..3 {
        all.join(sim, &m.patch(), 0, MODULE, NONE, false).expect("joins");
        assert_eq!(sim.get(JUMP, 5), NOP, "{turn}");
        let made = entry(JUMP, JUMP + 0x10);
        assert_eq!(sim.get(ENTRY, 8), made[..8], "{turn}");
        assert_eq!(m.word(ENTRY + 8), (KEY + 1).wrapping_sub(ENTRY + 8), "{turn}");
        // The call, which leads to the module's own code, and its entry.
        assert_eq!(sim.get(CALL, 1), [0xe8], "{turn}");
        assert_eq!(m.half(CALL + 1), (TEXT + 0x20 - 4).wrapping_sub(CALL + 1) as u32, "{turn}");
        assert_eq!(sim.get(SITE_OF_CALL, 4), call_site(CALL)[..4], "{turn}");
        assert_eq!(m.half(SITE_OF_CALL + 4), CALL_KEY.wrapping_sub(SITE_OF_CALL + 4) as u32, "{turn}");
        // What the key says, the kernel looks at.
        assert_eq!(sim.get(SETTLED, 2), [0x66, 0x90], "{turn}");
        assert_eq!(m.word(SETTLED_ENTRY + 8), CONSTANT_KEY.wrapping_sub(SETTLED_ENTRY + 8), "{turn}");
        sim.put(JUMP, &[0xe9, 0x0b, 0, 0, 0]);
        sim.put(CALL, &NOP);
        sim.put(SETTLED, &[0xeb, 6]);
        sim.put(ENTRY, &[turn; 40]);
        all.going(sim, 0, NONE);
        all.gone(sim, &m.patch(), 0, NONE);
        all.left(sim, &m.patch(), 0);
    }
    // The kernel had no memory for them: what comes next may be taken.
    all.refuse(0, Refusal::NoMemory);
    assert_eq!(all.presence(0), Presence::Refused(Refusal::NoMemory));
    all.join(sim, &m.patch(), 0, MODULE, NONE, false).expect("joins");
    all.refuse(0, Refusal::NoMemory);
    assert_eq!(all.presence(0), Presence::Here, "of one that is here nothing is known to have failed");
    all.going(sim, 0, NONE);
    all.gone(sim, &m.patch(), 0, NONE);
    all.left(sim, &m.patch(), 0);
    m.clear(all);
}

/// The init of the module is over: a key that is constant now says what the code is, and the kernel is told nothing.
#[test]
fn a_key_that_is_constant_already_says_what_the_code_is() {
    let jumps = |count: i32, branch: i64, was: &[u8], live: bool| {
        let mut m = Modules::new();
        m.relocs.iter_mut().filter(|r| r.at == SETTLED_ENTRY + 8).for_each(|r| r.addend += branch);
        let sim = m.sim();
        sim.put(SETTLED, was);
        sim.put(CONSTANT_KEY, &count.to_le_bytes());
        let mut all = m.prepared();
        all.join(sim, &m.patch(), 0, MODULE, NONE, live).expect("joins");
        let now = sim.get(SETTLED, was.len());
        all.going(sim, 0, NONE);
        all.gone(sim, &m.patch(), 0, NONE);
        all.left(sim, &m.patch(), 0);
        m.clear(all);
        now
    };
    let (nop, short, long) = (&[0x66, 0x90][..], &[0xeb, 6][..], &[0xe9, 3, 0, 0, 0][..]);
    for was in [nop, short, &NOP, long] {
        let (nop, jump) = if was.len() == 2 { (nop, short) } else { (&NOP[..], long) };
        for (count, branch, now) in [(0, 0, nop), (1, 0, jump), (0, 1, jump), (1, 1, nop), (7, 0, jump), (-1, 0, jump)]
        {
            assert_eq!(jumps(count, branch, was, true), now, "{was:x?} {count} {branch}");
            // Of one that is being loaded the kernel takes care.
            assert_eq!(jumps(count, branch, was, false), was, "{was:x?} {count} {branch}");
        }
    }
    // A short jump that cannot be made, because it would not reach.
    let m = Modules::new();
    m.sim().put(SETTLED_ENTRY, &entry_at(SETTLED_ENTRY, SETTLED, SETTLED + 0x90));
    m.sim().put(CONSTANT_KEY, &[1]);
    let mut all = m.prepared();
    let cannot = Refusal::BadRecord("a jump of a key, or a static call, that cannot be written");
    assert_eq!(all.join(m.sim(), &m.patch(), 0, MODULE, NONE, true), Err(cannot));
    m.clear(all);
}

/// The kernel stops the machine where the key says something else than the code (`__static_call_validate`).
#[test]
fn a_static_call_is_what_its_key_says() {
    let joined = |code: &[u8], flags: i64| {
        let mut m = Modules::new();
        for r in &mut m.relocs {
            r.addend += if r.at == SITE_OF_CALL + 4 { flags } else { 0 };
            // Behind the opcode.
            r.at += if r.at == CALL + 1 && code[0] == 0x0f { 1 } else { 0 };
        }
        m.sim().put(CALL, code);
        let mut all = m.prepared();
        let joined = all.join(m.sim(), &m.patch(), 0, MODULE, NONE, false);
        if joined.is_ok() {
            all.going(m.sim(), 0, NONE);
            all.gone(m.sim(), &m.patch(), 0, NONE);
            all.left(m.sim(), &m.patch(), 0);
        }
        m.clear(all);
        joined
    };
    let cannot = Err(Refusal::BadRecord("a jump of a key, or a static call, that cannot be written"));
    let (call, jump, conditional) = ([0xe8, 0, 0, 0, 0], [0xe9, 0, 0, 0, 0], [0x0f, 0x85, 0, 0, 0, 0]);
    for (code, right) in [(&call[..], 0), (&jump[..], 1), (&conditional[..], 1)] {
        for flags in 0..4 {
            let want = if flags == right { Ok(()) } else { cannot };
            assert_eq!(joined(code, flags), want, "{code:x?} {flags}");
        }
    }
}

/// What the kernel would write to, or stop the machine for, is looked at before anything is handed to it.
#[test]
fn an_entry_that_is_no_jump_or_call_of_carried_code_is_refused() {
    let refuses = |what: &str, change: &dyn Fn(&Sim)| {
        let m = Modules::new();
        change(m.sim());
        let mut all = Holders::new();
        let why = all.prepare(m.sim(), &m.patch());
        let none = Refusal::BadRecord("a jump of a key, or a static call, that is none");
        assert_eq!(why, Err(none), "{what}");
        m.clear(all);
    };
    let holds = |at: u64, bytes: &[u8]| {
        let m = Modules::new();
        m.sim().put(at, bytes);
        m.clear(m.prepared());
    };
    holds(JUMP, &[0x66, 0x90]);
    holds(JUMP, &[0xeb, 0x0e]);
    holds(JUMP, &[0xe9, 0x0b, 0, 0, 0]);
    holds(CALL, &[0xe9, 0, 0, 0, 0]);
    holds(CALL, &[0x0f, 0x84, 0, 0, 0, 0]);
    refuses("another instruction", &|s| s.put(JUMP, &[0x90; 5]));
    refuses("the beginning of a nop", &|s| s.put(JUMP, &[0x0f, 0x1f, 0x44, 0, 1]));
    refuses("a jump elsewhere", &|s| s.put(JUMP, &[0xe9, 0x0c, 0, 0, 0]));
    refuses("a short jump elsewhere", &|s| s.put(JUMP, &[0xeb, 0x0f]));
    refuses("a call by a register", &|s| s.put(CALL, &[0xff, 0xd0]));
    refuses("a call that is none any more", &|s| s.put(CALL, &NOP));
    refuses("a short jump of a call", &|s| s.put(CALL, &[0x74, 0x10]));
    let patch = Modules::new();
    let (start, end) = (patch.f.record.text_start, patch.f.record.text_end);
    refuses("code of the kernel", &|s| s.put(ENTRY, &entry(OLD, JUMP)));
    refuses("before the carried code", &|s| s.put(ENTRY, &entry(start - 1, JUMP)));
    refuses("over the end of the carried code", &|s| s.put(ENTRY, &entry(end - 4, JUMP)));
    refuses("to somewhere else", &|s| s.put(ENTRY, &entry(JUMP, end)));
    refuses("a key already", &|s| s.put(ENTRY + 8, &[1]));
    refuses("a call of the kernel's code", &|s| s.put(SITE_OF_CALL, &call_site(OLD)));
    refuses("a call over the end", &|s| {
        s.put(end - 4, &[0xe8]);
        s.put(SITE_OF_CALL, &call_site(end - 4));
    });
    refuses("a long call over the end", &|s| {
        s.put(end - 5, &[0x0f, 0x84]);
        s.put(SITE_OF_CALL, &call_site(end - 5));
    });
    refuses("the key of a call already", &|s| s.put(SITE_OF_CALL + 4, &[1]));
    refuses("a constant key already", &|s| s.put(SETTLED_ENTRY + 15, &[1]));
}

/// Its part of a module would be detached as the other's joins, and nothing keeps those in order.
#[test]
fn a_patch_with_functions_in_modules_gives_its_place_to_no_other() {
    let taken = |modules: bool, replaces: bool| {
        let (m, kernel, names) = (Modules::new(), Fixture::new(1, 1), [c"other".as_ptr() as u64]);
        let mut f = Fixture::new(1, 1);
        let r = &mut f.record;
        let (array, n) = if replaces { (&mut r.replaces, &mut r.n_replaces) } else { (&mut r.after, &mut r.n_after) };
        (*array, *n) = (names.as_ptr() as u64, 1);
        let (sites, board, mut layers) = (Sites::new(), Board::new(), Layers::new());
        let patch = if modules { m.patch() } else { kernel.patch() };
        let mut peer = Some(Peer { patch, sites: &sites, board: &board });
        layers.take(&f.sim, &f.patch(), |other| peer.take().ok_or(Refusal::NoOther { other }))
    };
    assert_eq!(taken(true, true), Err(Refusal::HasModules { other: 0 }));
    assert_eq!(taken(false, true), Ok(()));
    assert_eq!(taken(true, false), Ok(()));
    assert_eq!(Refusal::HasModules { other: 0 }.code(), 5032);
}
