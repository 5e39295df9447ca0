//! What can be said against loading a module before the kernel sees it.
//!
//! Input: a module and the host. Output: nothing, or every problem found. Identity comes first: when the module was made
//! for another kernel, nothing else about it means anything.

use lpbuild_abi::Mode;

use super::addresses;
use super::failure::{Failure, Obstacle};
use super::load::LoadOptions;
use super::module::ModuleFile;
use super::state::{PatchState, livepatched};
use super::system::Host;
use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::hash::to_hex;
use crate::kernel::find_build_id;

/// Checks identity, then everything else. What could not be compared is a note.
pub fn preflight(host: &Host, module: &ModuleFile) -> Result<Option<String>, Failure> {
    identity(host, module)?;
    contradictions(module)?;
    let note = addresses::check(host, module)?;
    let mut causes = Vec::new();
    modules(host, module, &mut causes);
    already_loaded(host, module, &mut causes);
    if causes.is_empty() {
        functions_taken(host, module, &mut causes);
    }
    permission(host, module, &mut causes);
    if causes.is_empty() { Ok(note) } else { Err(Failure { causes }) }
}

/// What the runtime reads must be what the manifest says, from which everything else here goes.
fn contradictions(module: &ModuleFile) -> Result<(), Failure> {
    let causes = module.contradictions.iter().map(|p| {
        let detail = format!("{}: {}", p.place, p.detail);
        Obstacle::from(Problem::new(codes::LP5118, module.place(), detail))
    });
    let causes: Vec<Obstacle> = causes.collect();
    if causes.is_empty() { Ok(()) } else { Err(Failure { causes }) }
}

/// What is wanted that the runtime in the module cannot do. The module loader passes over parameters it does not know, so
/// an old module would apply its patch in a dry run.
pub(super) fn options(module: &ModuleFile, wanted: &LoadOptions) -> Result<()> {
    for (is_wanted, parameter) in [
        (wanted.mode.is_some(), "mode"),
        (wanted.patience_ms.is_some(), "patience_ms"),
        (wanted.dry_run, "dry_run"),
        (wanted.oneshot, "oneshot"),
    ] {
        let known = |(key, value): &(String, String)| {
            key == "parmtype" && value.split_once(':').is_some_and(|(name, _)| name == parameter)
        };
        if is_wanted && !module.modinfo.iter().any(known) {
            let detail = format!("it has no parameter {parameter}");
            return Err(Error::new(codes::LP5120, module.place(), detail));
        }
    }
    let mode = wanted.mode.unwrap_or(module.manifest.patch.mode.to_abi());
    if wanted.force && mode != Mode::Transition {
        return Err(Error::new(codes::LP5121, module.place(), format!("its mode is {}", mode.name())));
    }
    Ok(())
}

fn identity(host: &Host, module: &ModuleFile) -> Result<()> {
    let refuse = |code: &'static codes::Code, detail: String| Err(Error::new(code, module.place(), detail));
    let machine = host.machine();
    if machine != "x86_64" {
        return refuse(codes::LP5102, format!("this host is {machine}"));
    }
    let Some(kernel) = &module.manifest.kernel else {
        return refuse(codes::LP5117, "its manifest names no kernel".to_owned());
    };
    let running = host.release();
    for (what, made_for) in [("manifest", Some(kernel.release.as_str())), ("vermagic", module.vermagic_release())] {
        if let Some(made_for) = made_for
            && made_for != running
        {
            return refuse(codes::LP5103, format!("{running} is running, its {what} says {made_for}"));
        }
    }
    let Some(notes) = host.bytes("sys/kernel/notes") else {
        return Err(Error::new(codes::LP5105, Place::object("/sys/kernel/notes"), "cannot be read"));
    };
    let Some(build_id) = find_build_id(&notes) else {
        return Err(Error::new(codes::LP5105, Place::object("/sys/kernel/notes"), "holds no NT_GNU_BUILD_ID"));
    };
    let running = to_hex(&build_id);
    if running != kernel.build_id {
        return refuse(
            codes::LP5104,
            format!("the running kernel is {running}, the patch was made for {}", kernel.build_id),
        );
    }
    Ok(())
}

/// Kernel modules that are loaded must be those that the patch was made for.
fn modules(host: &Host, module: &ModuleFile, causes: &mut Vec<Obstacle>) {
    for holder in &module.manifest.holders {
        let Some(note) = host.bytes(&format!("sys/module/{}/notes/.note.gnu.build-id", holder.name)) else { continue };
        let Some(id) = find_build_id(&note).map(|id| to_hex(&id)).filter(|id| *id != holder.build_id) else { continue };
        let what = format!("the loaded one is {id}, the patch was made for {}", holder.build_id);
        causes.push(Problem::new(codes::LP5125, Place::object(&holder.name), what).into());
    }
}

fn already_loaded(host: &Host, module: &ModuleFile, causes: &mut Vec<Obstacle>) {
    let name = &module.manifest.patch.name;
    if let Some(state) = PatchState::read(host, name) {
        let detail = format!("{name} {} is {}", state.version, state.state);
        causes.push(Problem::new(codes::LP5106, module.place(), detail).into());
    } else if host.exists(&format!("sys/module/{name}")) {
        causes.push(Problem::new(codes::LP5106, module.place(), format!("there is a module called {name}")).into());
    }
}

fn functions_taken(host: &Host, module: &ModuleFile, causes: &mut Vec<Obstacle>) {
    // What lies below, and what gives its place up, is meant to have the function; the runtime checks that it has.
    let patch = &module.manifest.patch;
    let patches: Vec<PatchState> = PatchState::names(host)
        .iter()
        .filter(|n| !patch.after.contains(n) && !patch.replaces.contains(n))
        .filter_map(|n| PatchState::read(host, n))
        .filter(|p| !p.states().is_idle())
        .collect();
    let livepatched = livepatched(host);
    for f in &module.manifest.functions {
        let place = || Place::symbol(&f.object, &f.symbol);
        // The runtime shows names without positions: only a unique name says which function it is. For the others the
        // runtime compares the bytes of the site.
        let of_module = |p: &PatchState| p.holders.iter().any(|h| h.name == f.object);
        let known = |p: &&PatchState| f.sympos == Some(0) && !of_module(p) || f.section.is_some() && of_module(p);
        if let Some(p) = patches.iter().filter(known).find(|p| p.functions.iter().any(|x| x.symbol == f.symbol)) {
            let problem = Problem::new(codes::LP5107, place(), format!("the patch {} replaces it", p.name));
            causes.push(Obstacle::from(problem).owned_by(&p.name));
        }
        let same = |sympos: u32| f.sympos.is_none_or(|own| own.max(1) == sympos);
        if let Some(l) = livepatched.iter().find(|l| l.object == f.object && l.symbol == f.symbol && same(l.sympos)) {
            let problem = Problem::new(codes::LP5108, place(), format!("the livepatch {} replaces it", l.patch));
            causes.push(Obstacle::from(problem).owned_by(&l.patch));
        }
    }
}

fn permission(host: &Host, module: &ModuleFile, causes: &mut Vec<Obstacle>) {
    if !host.may_load() {
        causes.push(Problem::new(codes::LP5109, module.place(), "this process has no CAP_SYS_MODULE").into());
    }
    if host.text("proc/sys/kernel/modules_disabled").is_some_and(|t| t == "1") {
        let place = Place::object("/proc/sys/kernel/modules_disabled");
        causes.push(Problem::new(codes::LP5110, place, "is 1 until the next boot").into());
    }
    if module.signature.is_none() && host.wants_signatures() {
        let why = host
            .lockdown()
            .filter(|l| l != "none")
            .map_or("sig_enforce is set".to_owned(), |l| format!("lockdown={l}"));
        causes.push(Problem::new(codes::LP5111, module.place(), format!("it is not signed, and {why}")).into());
    }
}
