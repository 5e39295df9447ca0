//! Who would keep `synchronize_rcu_tasks` from returning, found out before anybody traps because of it.
//!
//! Input: a table of all tasks, made when the operation began. Output: who of them has not rested since. A task rests where it is
//! off the run queue, in user mode, or has left its CPU by `schedule`; whoever does not is what RCU tasks waits for
//! (`check_holdout_task`, kernel/rcu/tasks.h): one task that works for half a minute in the kernel, and every call would trap as long.
//!
//! Nothing depends on the answer but how long calls trap: the wait itself comes behind the int3 all the same. Who begins such work
//! in between, and an exiting task that has left the task list, are not foreseen; then the int3 is taken back at the deadline
//! ([`crate::machine`]).

use core::sync::atomic::Ordering::SeqCst;

use crate::{
    board::Table,
    kernel::{Kernel, Rest},
    stack::{Blocker, Blockers, Where},
    switch::Scan,
};

/// Asks for everybody who has not rested yet, and returns how many are left.
pub fn pass<K: Kernel>(scan: &Scan<'_, K>, table: &Table, frames: &mut [u64], out: &mut Blockers) -> usize {
    out.clear();
    scan.each(table, |e| {
        let before = e.switches.load(SeqCst);
        match scan.k.rest(e.task(), frames) {
            Rest::Works(now) if before == 0 || before == now => {
                e.switches.store(now, SeqCst);
                out.push(Blocker { who: scan.k.who(scan.k.held(e.task())), at: Where::Restless });
            }
            _ => table.finish(e),
        }
    });
    out.total()
}
