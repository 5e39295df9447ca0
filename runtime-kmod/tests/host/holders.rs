//! A function of a kernel module: joined, detached, and everything that must keep it from being joined.

use lpbuild_abi::{AnchorRecord, FieldKind, HolderRecord, LateReloc, PatchRecord, Region};
use lpbuild_runtime::{
    board::Board,
    holders::{Holders, Joining, Presence, named},
    layers::{Layers, Peer},
    record::Patch,
    refusal::Refusal,
    site::{Diverted, INT3, Route, divert},
    sites::{Shown, SiteSet, Sites},
};

use crate::sim::{Everything, FakeModule, Fixture, LEN, NEW, OLD, SITE};

/// The module: its `struct module`, and its memory.
use crate::modules::*;

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
        assert_eq!(all.join(m.sim(), (&patch, &Layers::new()), 0, MODULE, at, false), Ok(()));
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
        assert_eq!(
            all.join(
                m.sim(),
                (&patch, &Layers::new()),
                0,
                MODULE,
                Joining { route: Route::New, trapped: false },
                false
            ),
            Ok(())
        );
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
        assert_eq!(all.join(m.sim(), (&patch, &Layers::new()), 0, MODULE, at, false), Ok(()));
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
        assert_eq!(all.join(m.sim(), (&patch, &Layers::new()), 0, MODULE, NONE, false), Ok(()), "{turn}");
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
    assert_eq!(all.join(m.sim(), (&patch, &Layers::new()), 0, MODULE, NONE, false), Ok(()));
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
    assert_eq!(all.join(m.sim(), (&m.patch(), &Layers::new()), 0, MODULE, NONE, false), Err(other));
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
    assert_eq!(all.join(m.sim(), (&patch, &Layers::new()), 0, MODULE, at, false), Ok(()));
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
    assert_eq!(all.join(m.sim(), (&patch, &Layers::new()), 0, MODULE, NONE, false), Ok(()));
    assert!(!all.going(m.sim(), 0, NONE));
    all.gone(m.sim(), &patch, 0, NONE);
    all.left(m.sim(), &patch, 0);
    m.clear(all);
    // A branch to it does not, and has a jump; with none it is refused.
    let mut m = Modules::new();
    far(&m);
    m.relocs.iter_mut().filter(|r| r.at == FIELD).for_each(|r| (r.anchor, r.addend) = (6, 0x10 - 4));
    let (patch, mut all) = (m.patch(), m.prepared());
    assert_eq!(all.join(m.sim(), (&patch, &Layers::new()), 0, MODULE, NONE, false), Ok(()));
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
    assert_eq!(rejected(&|p, _, _, _| p.relocs += 4), "a misaligned array");
    for change in [
        |p: &mut PatchRecord| p.n_kernel_funcs = 1,
        |p: &mut PatchRecord| p.n_kernel_ranges = 1,
        |p: &mut PatchRecord| p.n_anchors = 5,
        |p: &mut PatchRecord| p.n_relocs = 6,
    ] {
        assert_eq!(rejected(&|p, _, _, _| change(p)), "the sums of what belongs to each module");
    }
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

/// What a patch below has at a site, or has not, is asked each time the module comes.
#[test]
fn a_site_in_a_module_is_laid_over_that_of_a_patch_below() {
    const BELOW: u64 = NEW + 0x3000;
    const BEGINS: [u8; 9] = [0xf3, 0x0f, 0x1e, 0xfa, 0x53, 0x48, 0x8b, 0x35, 0x11];
    let mut m = Modules::new();
    let (resume, dispatch, names) = (NEW + 0x80, NEW + 0xc0, [c"below".as_ptr() as u64]);
    (m.f.funcs[0].resume, m.f.funcs[0].dispatch) = (resume, dispatch);
    (m.f.record.after, m.f.record.n_after) = (names.as_ptr() as u64, 1);
    m.sim().put(resume, &BEGINS);
    let leads = |slot: u64| {
        let rel = m.half(slot + 1) as i32;
        (m.sim().get(slot, 1) == [0xe9]).then(|| (slot + 5).wrapping_add_signed(rel.into()))
    };
    let (to_old, original) = (dispatch + 15, resume + 4);
    let (patch, mut all, own) = (m.patch(), m.prepared(), m.site());
    let new = Joining { route: Route::New, trapped: false };
    let goes = |all: &mut Holders<u64>| {
        assert!(!all.going(m.sim(), 0, new));
        all.gone(m.sim(), &patch, 0, new);
        all.left(m.sim(), &patch, 0);
    };
    assert_eq!(all.join(m.sim(), (&patch, &Layers::new()), 0, MODULE, new, false), Ok(()));
    // SAFETY: nothing is given back yet.
    let mut site = unsafe { all.shown() }[0].get()[0];
    assert_eq!((m.site(), leads(to_old)), (jump(), Some(resume)));
    goes(&mut all);
    assert_eq!(m.site(), own);
    // The same function of the patch below.
    site.target = BELOW;
    site.jump.bytes[1..5].copy_from_slice(&(BELOW.wrapping_sub(site.addr + 5) as u32).to_le_bytes());
    let (below, mut sites) = (site.bytes(Route::New).to_vec(), [site]);
    let shown = [Shown::new()];
    // SAFETY: it stays until the end.
    unsafe { shown[0].show(sites.as_mut_ptr(), 1) };
    let (in_kernel, board, mut layers) = (Sites::new(), Board::new(), Layers::new());
    let mut peer = Some(Peer { patch: m.patch(), sites: &in_kernel, shown: &shown, board: &board });
    layers.take(m.sim(), &patch, |other| peer.take().ok_or(Refusal::NoOther { other })).expect("it is held");
    for _ in 0..2 {
        m.sim().put(TEXT + AT + 5, &below);
        assert_eq!(all.join(m.sim(), (&patch, &layers), 0, MODULE, new, false), Ok(()));
        assert_eq!((m.site(), leads(to_old), leads(original)), (jump(), Some(BELOW), Some(BELOW)));
        goes(&mut all);
        assert_eq!(m.site(), below, "the patch below puts back what was there before");
        // It could not be joined this time.
        m.sim().put(TEXT + AT + 5, &own);
        assert_eq!(all.join(m.sim(), (&patch, &layers), 0, MODULE, new, false), Ok(()));
        assert_eq!((leads(to_old), m.sim().get(resume, 9)), (Some(resume), BEGINS.to_vec()));
        goes(&mut all);
        assert_eq!(m.site(), own);
    }
    // A function of it that this patch leaves alone calls its own directly.
    let call = NEW + 0xe0;
    m.sim().put(call, &[&[0xe8][..], &(BELOW.wrapping_sub(call + 5) as u32).to_le_bytes()].concat());
    m.sim().put(TEXT + AT + 5, &below);
    let refused = all.join(m.sim(), (&patch, &layers), 0, MODULE, new, false);
    assert_eq!((refused, m.site()), (Err(Refusal::Bypassed { func: 0 }), below));
    m.clear(all);
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
        let mut peer = Some(Peer { patch, sites: &sites, shown: &[], board: &board });
        layers.take(&f.sim, &f.patch(), |other| peer.take().ok_or(Refusal::NoOther { other }))
    };
    assert_eq!(taken(true, true), Err(Refusal::HasModules { other: 0 }));
    assert_eq!(taken(false, true), Ok(()));
    assert_eq!(taken(true, false), Ok(()));
    assert_eq!(Refusal::HasModules { other: 0 }.code(), 5032);
}
