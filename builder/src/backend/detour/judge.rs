//! Where each old function is left, and when the switch is made; refusals of both.

use crate::codes;
use crate::correlate::NewAtom;
use crate::error::{Place, Problem};
use crate::plan::manifest::Mode;
use crate::plan::{Dest, Detour, JumpSite, ObjectPair, Options, PairId, PatchSet, Role};

/// Chooses the sites and the mode.
pub fn judge(pairs: &[ObjectPair], set: &PatchSet, options: &Options) -> (Detour, Vec<Problem>) {
    let (sites, mut refused) = sites(pairs, set, options);
    refused.extend(check_originals(pairs, set, &sites));
    refused.extend(lasting(pairs, set, options, &|_, dest| {
        matches!(dest, Dest::Carried(..) | Dest::Original(..) | Dest::Runtime(_))
    }));
    let mode = mode(pairs, set, &sites, options, &mut refused);
    (Detour { sites, mode }, refused)
}

fn sites(pairs: &[ObjectPair], set: &PatchSet, options: &Options) -> (Vec<(usize, JumpSite)>, Vec<Problem>) {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for (index, item) in set.items.iter().enumerate() {
        let Role::Replaces(old) = item.role else { continue };
        match super::sites::choose(&pairs[item.pair.0 as usize].old, old.0, options.jump) {
            Ok(site) => found.push((index, site)),
            Err(problem) => refused.push(problem),
        }
    }
    (found, refused)
}

/// What changes in its place must not lead into a patch that goes.
pub fn lasting(
    pairs: &[ObjectPair],
    set: &PatchSet,
    options: &Options,
    in_patch: &dyn Fn(PairId, &Dest) -> bool,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for item in set.items.iter().filter(|i| matches!(i.role, Role::InPlace(_)) && !options.oneshot) {
        let pair = &pairs[item.pair.0 as usize];
        for edge in item.edges.iter().filter(|e| in_patch(item.pair, &e.dest)) {
            let what = match &edge.dest {
                // The inside of one that is replaced: closure has said so.
                Dest::Carried(p, n, _) if is_replaced(set, (*p, *n)) => continue,
                Dest::Carried(p, n, _) | Dest::Original(p, n) => pairs[p.0 as usize].new.atom(n.0).name.clone(),
                Dest::Runtime(name) => (*name).to_owned(),
                Dest::Constant(text) => format!("{:?}", String::from_utf8_lossy(text)),
                Dest::Old(..) | Dest::Kernel(..) => continue,
            };
            let place = Place::symbol(&pair.name, &pair.new.atom(item.atom.0).name).at(edge.field.at);
            problems.push(Problem::new(
                codes::LP2031,
                place,
                format!("there it leads to {what}, which the patch brings"),
            ));
        }
    }
    problems
}

fn is_replaced(set: &PatchSet, (pair, atom): (PairId, NewAtom)) -> bool {
    let old = |role| matches!(role, Role::Replaces(_) | Role::Piece);
    set.items.iter().any(|i| (i.pair, i.atom) == (pair, atom) && old(i.role))
}

/// Originals that carried code or data refers to must have an entrance.
fn check_originals(pairs: &[ObjectPair], set: &PatchSet, sites: &[(usize, JumpSite)]) -> Vec<Problem> {
    let fixed = |to: (PairId, NewAtom)| {
        let of = |index: usize| (set.items[index].pair, set.items[index].atom);
        sites.iter().find(|(index, _)| of(*index) == to)?.1.fixed.as_ref()
    };
    let mut problems = Vec::new();
    for item in &set.items {
        for edge in item.edges.iter().chain(item.entries.iter().flat_map(|e| e.edges.iter().chain(&e.replacement))) {
            let Dest::Original(pair, atom) = edge.dest else { continue };
            let Some(why) = fixed((pair, atom)) else { continue };
            let own = &pairs[item.pair.0 as usize];
            let place = Place::symbol(&own.name, &own.new.atom(item.atom.0).name).at(edge.field.at);
            let name = &pairs[pair.0 as usize].new.atom(atom.0).name;
            problems.push(Problem::new(codes::LP2018, place, format!("the jump in {name} covers {why}")));
        }
    }
    problems
}

/// The mode that was asked for, else the least that keeps several functions together. Both modes that do not stop the
/// machine send calls to the original while old and new are in use, so it must have an entrance.
fn mode(
    pairs: &[ObjectPair],
    set: &PatchSet,
    sites: &[(usize, JumpSite)],
    options: &Options,
    refused: &mut Vec<Problem>,
) -> Mode {
    let fixed: Vec<(&str, &str, &String)> = sites
        .iter()
        .filter_map(|(index, site)| {
            let item = &set.items[*index];
            let Role::Replaces(old) = item.role else { return None };
            let pair = &pairs[item.pair.0 as usize];
            Some((pair.name.as_str(), pair.old.atom(old.0).name.as_str(), site.fixed.as_ref()?))
        })
        .collect();
    match options.mode {
        None if !fixed.is_empty() => Mode::StopMachine,
        // Callbacks alone keep nothing together.
        None if sites.len() <= 1 => Mode::Drain,
        None => Mode::Transition,
        Some(Mode::StopMachine) => Mode::StopMachine,
        Some(mode) => {
            refused.extend(fixed.into_iter().map(|(object, symbol, why)| {
                let what = format!("mode {}, and the jump covers {why}", mode.name());
                Problem::new(codes::LP2102, Place::symbol(object, symbol), what)
            }));
            mode
        }
    }
}
