//! What must hold.

use std::ops::Range;

use crate::{
    cpu::within,
    world::{At, Kind, Level, MS, OPERATOR, Run, Task, World},
};

/// A task has arrived in a version of a function; `since`: when it was called, unless new code called new code.
pub fn arrives(w: &mut World, f: usize, new: bool, since: Option<u64>) {
    let slot = w.cpus[w.here].current;
    w.note(|| format!("task {slot} runs {} {f}", if new { "new" } else { "old" }));
    let (rules, t) = (w.rules, &w.tasks[slot]);
    // Nothing stops an NMI: one that is in old code when everybody is switched goes on with the new.
    let nmi = rules.at_once.is_some() && t.level() == Some(Level::Nmi);
    // Where all change at one instant nobody is left out, but where the stop itself has to find everybody.
    let at_once = rules.at_once.is_some() && !w.plan.without.contains(&true);
    if t.exempt && !at_once || nmi {
        return;
    }
    let name = |new| if new { "new" } else { "old" };
    let other = |k: &Kind| matches!(k, Kind::Call(c) if c.version == Some(!new));
    if rules.strict && !w.forced && t.frames.iter().any(other) {
        return w.fail(format!("task {slot} runs {} code below {} code", name(new), name(!new)));
    }
    if let (Some((from, goal)), Some(since)) = (rules.from, since)
        && since >= from
        && new != goal
    {
        return w.fail(format!("task {slot} runs {} code of function {f} when everybody runs the other", name(new)));
    }
    let patient = rules.published.is_none_or(|then| w.now - then < 1000 * MS);
    if rules.by_task && !w.forced && slot != OPERATOR && !t.kernel && t.level().is_none() {
        if patient && t.seen == Some(!new) {
            return w.fail(format!("task {slot} runs {} code in the same system call as {}", name(new), name(!new)));
        }
        w.tasks[slot].seen = Some(new);
    }
    if let Some(goal) = rules.at_once.filter(|_| !w.forced) {
        if new == goal && !rules.flipped {
            w.rules.flipped = true;
            w.note(|| "the first one runs the other version".into());
            let stale = |t: &crate::world::Task| {
                t.exists
                    && (!t.exempt || at_once)
                    && t.frames
                        .iter()
                        .take_while(|k| !matches!(k, Kind::Interrupt(Level::Nmi, _)))
                        .any(|k| matches!(k, Kind::Call(c) if c.version == Some(!goal)))
            };
            if let Some(late) = w.tasks.iter().position(stale) {
                w.fail(format!("task {late} is in {} code when task {slot} runs {}", name(!goal), name(goal)));
            }
        } else if new != goal && rules.flipped {
            w.fail(format!("task {slot} runs {} code behind the switch", name(new)));
        }
    }
}

/// An int3 is written: calls trap until everybody has rested, so whoever was there when it began has.
pub fn traps(w: &mut World) {
    let Some(since) = w.rules.rested.take() else { return };
    let restless = |(s, t): (usize, &Task)| {
        let works = t.exists && t.listed && t.run == Run::Ready && !t.idle && !t.stopper && s != OPERATOR;
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
    let inside = |k: &Kind| matches!(k, Kind::Call(c) if c.version == Some(false));
    if let Some(slot) = w.tasks.iter().position(|t| t.exists && t.frames.iter().any(inside)) {
        w.fail(format!("draining is over and task {slot} is in old code"));
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
                Kind::Call(c) if matches!(&c.at, At::Choosing(b, _, table) if b.begun() && gone.contains(table)) => {
                    return Some(format!("task {slot} reads a table that is freed"));
                }
                _ => {}
            }
        }
    }
    None
}

/// The module goes.
pub fn gone(w: &mut World) {
    w.module = false;
    w.note(|| "the module goes".into());
    let inside = w.tasks.iter().position(|t| t.exists && t.in_module(w.plan.shape()));
    if let Some(slot) = inside {
        let frames = w.tasks[slot].walk(w.plan.shape());
        let at = format!("{:x?} {:?}", frames, w.tasks[slot].frames);
        w.fail(format!("the module goes while task {slot} is inside: {at}"));
    }
    if !w.blocks.is_empty() {
        let n = w.blocks.len();
        w.fail(format!("{n} pieces of memory are not given back"));
    }
    if let Some(slot) = w.tasks.iter().position(|t| t.holds != 0) {
        w.fail(format!("task {slot} is held for ever"));
    }
}
