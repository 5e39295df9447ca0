//! A patch with a function of a kernel module, the module, and one that it needs.

use lpbuild_abi::{
    AnchorKind, AnchorRecord, FieldKind, FuncRecord, HolderRecord, LateReloc, MAX_SITE, PatchRecord, RangeRecord,
    Region,
};
use lpbuild_runtime::{
    holders::{Holders, Joining, Presence},
    layers::Layers,
    record::Patch,
    refusal::Refusal,
    site::Route,
};

use crate::sim::{Everything, FakeModule, Fixture, LEN, NEW, SITE, Sim};

/// The module: its `struct module`, and its memory.
pub const MODULE: usize = 0xffff_ffff_a000_0000;
pub const TEXT: u64 = 0xffff_ffff_a001_0000;
pub const RODATA: u64 = 0xffff_ffff_a002_0000;
pub const DATA: u64 = 0xffff_ffff_a003_0000;
pub const PERCPU: u64 = 0x2_0000;
/// One that it needs.
pub const EXPORTER: usize = 0xffff_ffff_a800_0000;
/// The function is here in the section that the symbol is in.
pub const AT: u64 = 0x100;
/// What is carried for it: fields in the code, data, zeros, constants.
pub const FIELD: u64 = NEW + 0x20;
pub const STUB: u64 = NEW + 0x60;
/// A jump of a key of the module.
pub const JUMP: u64 = NEW + 0x40;
pub const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];
pub const BROUGHT: u64 = NEW + 0x8000;
/// Its entry.
pub const ENTRY: u64 = BROUGHT + 16;
/// A static call of the module, and its entry.
pub const CALL: u64 = NEW + 0x48;
pub const SITE_OF_CALL: u64 = BROUGHT + 32;
/// A jump of a key that is constant behind the init of the module, and its entry.
pub const SETTLED: u64 = NEW + 0x50;
pub const SETTLED_ENTRY: u64 = BROUGHT + 40;
/// Keys of the module.
pub const KEY: u64 = DATA + 0x60;
pub const CALL_KEY: u64 = DATA + 0x58;
pub const CONSTANT_KEY: u64 = 0xffff_ffff_a004_0010;
pub const ZEROS: u64 = NEW + 0x9000;
pub const CONSTANTS: u64 = NEW + 0xa000;

pub const NONE: Joining = Joining { route: Route::Original, trapped: false };

pub struct Modules {
    pub f: Fixture,
    pub holders: Vec<HolderRecord>,
    pub anchors: Vec<AnchorRecord>,
    pub relocs: Vec<LateReloc>,
}

pub fn anchor(owner: u32, kind: AnchorKind, region: Region) -> AnchorRecord {
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

pub fn reloc(at: u64, anchor: u32, kind: FieldKind, addend: i64) -> LateReloc {
    LateReloc { at, addend, anchor, site_of: 0, stub: 0, kind: kind as u8, zero: [0; 7] }
}

/// An entry of a jump as the loader of the patch has left it.
pub fn entry_at(at: u64, code: u64, target: u64) -> Vec<u8> {
    let distance = |to: u64, at: u64| (to.wrapping_sub(at) as u32).to_le_bytes();
    [distance(code, at), distance(target, at + 4), [0; 4], [0; 4]].concat()
}

pub fn entry(code: u64, target: u64) -> Vec<u8> {
    entry_at(ENTRY, code, target)
}

/// That of a static call.
pub fn call_site(code: u64) -> Vec<u8> {
    [(code.wrapping_sub(SITE_OF_CALL) as u32).to_le_bytes(), [0; 4]].concat()
}

pub fn note(id: u8) -> Vec<u8> {
    [4u32, 20, 3].iter().flat_map(|n| n.to_le_bytes()).chain(*b"GNU\0").chain([id; 20]).collect()
}

impl Modules {
    /// A patch whose only function is one of the module `target`, which is here, and which needs `exporter`.
    pub fn new() -> Box<Self> {
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

    pub fn sim(&self) -> &Sim {
        &self.f.sim
    }
    /// Both modules are here, and what is carried is as the loader of the patch has left it.
    pub fn arrive(&self) {
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
    pub fn loaded(&self) {
        let sim = self.sim();
        sim.put(JUMP, &NOP);
        sim.put(CALL, &[0xe8, 1, 2, 3, 4]);
        sim.put(SETTLED, &[0x66, 0x90]);
        sim.put(ENTRY, &entry(JUMP, JUMP + 0x10));
        sim.put(SITE_OF_CALL, &call_site(CALL));
        sim.put(SETTLED_ENTRY, &entry_at(SETTLED_ENTRY, SETTLED, SETTLED + 8));
    }
    pub fn patch(&self) -> Patch<'_> {
        // SAFETY: vectors and strings behind the addresses live as long as this.
        unsafe { Patch::unsealed(&self.f.record, &Everything) }.expect("valid")
    }
    pub fn prepared(&self) -> Holders<u64> {
        let mut all = Holders::new();
        all.prepare(self.sim(), &self.patch()).expect("there is memory");
        all
    }
    /// The bytes at the site.
    pub fn site(&self) -> Vec<u8> {
        self.sim().get(TEXT + AT + 5, SITE.len())
    }
    pub fn word(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.sim().get(at, 8).try_into().expect("8 bytes"))
    }
    pub fn half(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.sim().get(at, 4).try_into().expect("4 bytes"))
    }
    pub fn clear(&self, mut all: Holders<u64>) {
        // SAFETY: nobody refers to it any more.
        unsafe { all.clear(self.sim()) };
        assert_eq!(self.sim().blocks(), 0, "memory is not given back");
        assert_eq!(self.sim().world().views, 0, "views are not given back");
    }
    /// Joining is refused, and the module is as it was.
    pub fn refused(&self) -> Refusal {
        let (before, mut all) = (self.sim().get(TEXT, 0x200), self.prepared());
        let views = self.sim().world().views;
        let why = all.join(self.sim(), (&self.patch(), &Layers::new()), 0, MODULE, NONE, false).expect_err("refused");
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
pub type Change<'c> = dyn Fn(&mut PatchRecord, &mut Vec<HolderRecord>, &mut [AnchorRecord], &mut [LateReloc]) + 'c;

pub fn blank() -> FuncRecord {
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

pub fn jump() -> Vec<u8> {
    let next = TEXT + AT + 5 + 5;
    let rel = (NEW.wrapping_sub(next)) as u32;
    [&[0xe9][..], &rel.to_le_bytes(), &[0x0f, 0x1f, 0x00]].concat()
}
