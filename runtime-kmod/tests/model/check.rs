//! What must hold.

use std::ops::Range;

use crate::{
    cpu::within,
    target::data,
    world::{
        At, BEGINS, BROUGHT, CONTENTS, FIELD, Kind, Level, MS, OPERATOR, Run, Task, Version, World, new_addr, text,
    },
};

fn name(version: Version) -> String {
    match version {
        0 => "the kernel's".into(),
        v => format!("patch {}'s", v - 1),
    }
}

/// A task has arrived in a version of a function; `since`: when it was called, unless code of a patch called its own.
pub fn arrives(w: &mut World, f: usize, version: Version, since: Option<u64>) {
    let slot = w.cpus[w.here].current;
    w.note(|| format!("task {slot} runs {} {f}", name(version)));
    let (rules, t) = (w.rules, &w.tasks[slot]);
    // Nothing stops an NMI: one that is in old code when everybody is switched goes on with the new.
    let nmi = rules.at_once && t.level() == Some(Level::Nmi);
    // Where all change at one instant nobody is left out, but where the stop itself has to find everybody.
    let at_once = rules.at_once && !w.plan.patches[w.operating].without.contains(&true);
    if t.exempt && !at_once || nmi {
        return;
    }
    if let (Some((from, versions)), Some(since)) = (rules.from, since)
        && since >= from
        && version != versions[f]
    {
        let (is, should) = (name(version), name(versions[f]));
        return w.fail(format!("task {slot} runs {is} version of function {f} when everybody runs {should}"));
    }
    if since.is_some_and(|s| s >= rules.begun) && version != rules.initial[f] && version != rules.goal[f] {
        return w.fail(format!("task {slot} runs {} version of function {f}, which nobody should", name(version)));
    }
    let Some(new) = rules.side(f, version) else { return };
    let side = |new| if new { "new" } else { "old" };
    let of = |k: &Kind| match k {
        Kind::Call(c) if !c.below => c.version.and_then(|v| rules.side(c.f, v)),
        _ => None,
    };
    if rules.strict && !w.forced && t.frames.iter().any(|k| of(k) == Some(!new)) {
        return w.fail(format!("task {slot} runs {} code below {} code", side(new), side(!new)));
    }
    let patient = rules.published.is_none_or(|then| w.now - then < 1000 * MS);
    if rules.by_task && !w.forced && slot != OPERATOR && !t.kernel && t.level().is_none() {
        if patient && t.seen == Some(!new) {
            return w.fail(format!("task {slot} runs {} code in the same system call as {}", side(new), side(!new)));
        }
        w.tasks[slot].seen = Some(new);
    }
    if rules.at_once && !w.forced {
        if new && !rules.flipped {
            w.rules.flipped = true;
            w.note(|| "the first one runs the other version".into());
            let outside = |k: &&Kind| !matches!(k, Kind::Interrupt(Level::Nmi, _));
            let stale = |t: &crate::world::Task| {
                let asked = t.exists && (!t.exempt || at_once);
                asked && t.frames.iter().take_while(outside).any(|k| of(k) == Some(false))
            };
            if let Some(late) = w.tasks.iter().position(stale) {
                w.fail(format!("task {late} is in old code when task {slot} runs new"));
            }
        } else if !new && rules.flipped {
            w.fail(format!("task {slot} runs old code behind the switch"));
        }
    }
}

/// New code of a function of a module refers to the module that is here, and what was brought for it began anew when that came.
pub fn refers(w: &mut World, p: usize, f: usize, place: u8) {
    let Some(t) = w.plan.target[f] else { return };
    let field = new_addr(p, f) + FIELD;
    let byte = |w: &World, at: u64| w.carried(at).unwrap_or_default();
    let is = u64::from_le_bytes(std::array::from_fn(|i| byte(w, field + i as u64)));
    let should = data(w, t) + f as u64 * 8;
    if is != should || !w.targets[t].is_there() {
        return w.fail(format!("new code of function {f} refers to {is:#x}, and not to {should:#x}"));
    }
    if place == 0 {
        let at = text(p).0 + BROUGHT + t as u64 * 8;
        let (counted, calls) = (byte(w, at), w.targets[t].calls[p]);
        if counted != BEGINS.wrapping_add(calls) {
            w.fail(format!("what is brought for module {t} is {counted} behind {calls} calls"));
        }
        w.targets[t].calls[p] = calls.wrapping_add(1);
        w.written.insert(at, counted.wrapping_add(1));
    }
}

/// Code of a version of a function reads the constant that the first patch changes.
pub fn constant(w: &mut World, f: usize, version: Version, below: bool) {
    let nmi = w.current().level() == Some(Level::Nmi);
    // What new code calls as the original finds what new code does.
    if !w.plan.constant || !w.plan.patches[0].has[f] || below || nmi || w.forced || w.spoilt.is_some() {
        return;
    }
    let (slot, new) = (w.cpus[w.here].current, w.constant == CONTENTS[1]);
    // In a stop without dispatchers the code changes beside such a task as well.
    let unseen = w.current().exempt && w.plan.patches[0].without.contains(&true);
    if version == 0 && new && !unseen {
        w.fail(format!("task {slot} is in old code and finds the new content"));
    } else if version == 1 && !new && w.rules.together && !w.current().exempt {
        w.fail(format!("task {slot} is in new code and finds the old content"));
    }
}

/// An int3 is written: calls trap until everybody has rested, so whoever was there when it began has.
pub fn traps(w: &mut World) {
    let Some(since) = w.rules.rested.take() else { return };
    let restless = |(s, t): (usize, &Task)| {
        let works = t.exists && t.listed && t.run == Run::Ready && !t.idle && !t.stopper && s != OPERATOR && !t.pinned;
        // An interrupt on top of user mode is soon over.
        let in_kernel = t.frames.first().is_some_and(|k| !matches!(k, Kind::Interrupt(..)));
        works && in_kernel && t.restless < since
    };
    if let Some(slot) = w.tasks.iter().enumerate().position(restless) {
        w.fail(format!("calls trap while task {slot} works without a pause"));
    }
}

/// Draining is over: nobody is in old code, whether on the task list or off it.
pub fn drained(w: &mut World) {
    let rules = w.rules;
    let old = |c: &crate::world::Call| !c.below && c.version.and_then(|v| rules.side(c.f, v)) == Some(false);
    let inside = |k: &Kind| matches!(k, Kind::Call(c) if old(c));
    if let Some(slot) = w.tasks.iter().position(|t| t.exists && t.frames.iter().any(inside)) {
        w.fail(format!("draining is over and task {slot} is in old code"));
    }
}

/// `lp_original` of patch `p` has led somewhere.
pub fn original(w: &mut World, p: usize, f: usize, version: Version) {
    let slot = w.cpus[w.here].current;
    let below = w.patches[p].below[f];
    w.note(|| format!("task {slot} runs {} {f} below patch {p}", name(version)));
    if version != below {
        let (is, should) = (name(version), name(below));
        w.fail(format!("lp_original of patch {p} leads to {is} version of function {f}, not to {should}"));
    }
}

/// Who still uses memory that is being given back.
pub fn users(w: &World, gone: &Range<usize>) -> Option<String> {
    for (slot, t) in w.tasks.iter().enumerate() {
        if within(&t.works, gone) {
            return Some(format!("task {slot} has a request in memory that is freed"));
        }
        for k in &t.frames {
            match k {
                Kind::Works(list, now) if within(list, gone) || now.as_ref().is_some_and(|n| within(&[n.1], gone)) => {
                    return Some(format!("task {slot} is about to call a request in memory that is freed"));
                }
                Kind::Call(c) if matches!(&c.at, At::Choosing(_, b, _, table) if b.begun() && gone.contains(table)) => {
                    return Some(format!("task {slot} reads a table that is freed"));
                }
                _ => {}
            }
        }
    }
    None
}

/// The module of a patch goes; `alone`: nothing else is being done.
pub fn gone(w: &mut World, p: usize, alone: bool) {
    w.patches[p].module = false;
    w.note(|| format!("the module of patch {p} goes"));
    let inside = w.tasks.iter().position(|t| t.exists && t.in_module(w.plan.shape(), p));
    if let Some(slot) = inside {
        let frames = w.tasks[slot].walk(w.plan.shape());
        let at = format!("{:x?} {:?}", frames, w.tasks[slot].frames);
        w.fail(format!("the module goes while task {slot} is inside: {at}"));
    }
    let n = w.blocks.iter().filter(|b| b.2 == p).count() + w.views.iter().filter(|v| v.1 == p).count();
    if n != 0 {
        w.fail(format!("{n} pieces of memory or writable views are not given back"));
    }
    if let Some(slot) = w.tasks.iter().position(|t| t.holds != 0).filter(|_| alone) {
        w.fail(format!("task {slot} is held for ever"));
    }
}
