//! Schedules in which nothing is missing, then one rule less at a time.

use std::collections::BTreeMap;

use lpbuild_abi::Mode;
use lpbuild_runtime::kernel::Guard;

use crate::{
    plan::Cut,
    schedule::{End, run},
};

fn schedules(default: u64) -> u64 {
    std::env::var("LPBUILD_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn wanted_seed() -> Option<u64> {
    std::env::var("LPBUILD_SEED").ok().and_then(|n| n.parse().ok())
}

/// Fails with the story of a schedule: all of it when it was asked for, or its end.
fn tell(seed: u64, mode: Option<Mode>) -> ! {
    let End { failure, log, plan, .. } = run(seed, Cut::Nothing, mode, true);
    let from = if wanted_seed().is_some() { 0 } else { log.len().saturating_sub(200) };
    panic!("seed {seed}: {}\n{plan:?}\n{}", failure.unwrap_or_default(), log[from..].join("\n"));
}

fn holds(mode: Mode) {
    if let Some(seed) = wanted_seed() {
        tell(seed, Some(mode));
    }
    let n = schedules(10_000);
    let (mut steps, mut outcomes) = (0, BTreeMap::<_, u64>::new());
    for seed in 0..n {
        let end = run(seed, Cut::Nothing, Some(mode), false);
        if end.failure.is_some() {
            tell(seed, Some(mode));
        }
        steps += end.steps;
        for outcome in end.outcomes {
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    println!("{}: {n} schedules, {steps} steps, {outcomes:?}", mode.name());
}

#[test]
fn stop_machine_holds() {
    holds(Mode::StopMachine);
}

#[test]
fn drain_holds() {
    holds(Mode::Drain);
}

#[test]
fn transition_holds() {
    holds(Mode::Transition);
}

/// Schedules until one fails.
fn caught(cut: Cut, mode: Option<Mode>) {
    let n = schedules(20_000).max(20_000);
    for seed in 0..n {
        let end = run(seed, cut, mode, false);
        if let Some(why) = end.failure {
            println!("without {cut:?}: seed {seed}: {why}");
            return;
        }
    }
    panic!("without {cut:?} nothing goes wrong in {n} schedules");
}

macro_rules! without {
    ($($name:ident: $cut:expr;)*) => {
        $(#[test]
        fn $name() {
            caught($cut, None);
        })*
    };
}

without! {
    rcu_tasks_is_needed: Cut::RcuTasks;
    serialising_is_needed: Cut::SerializeAll;
    the_census_is_one_with_publishing: Cut::CensusGap;
    running_tasks_are_looked_at: Cut::LookClean;
    tasks_are_held: Cut::Hold;
    recalling_is_needed: Cut::Recall;
    the_hotplug_lock_is_needed: Cut::Hotplug;
    sites_are_compared: Cut::Rule(Guard::CheckSites);
    int3_comes_first: Cut::Rule(Guard::Int3First);
    int3_is_seen_before_the_tail: Cut::Rule(Guard::Int3Seen);
    the_tail_is_seen_before_the_first_byte: Cut::Rule(Guard::TailSeen);
    late_hits_are_diverted: Cut::Rule(Guard::LateHits);
    tails_wait_for_rcu_tasks: Cut::Rule(Guard::RcuBeforeTails);
    who_works_is_waited_for_before_the_int3: Cut::Rule(Guard::Survey);
    int3s_are_taken_back: Cut::Rule(Guard::TakeBack);
    stacks_are_searched: Cut::Rule(Guard::StackScan);
    the_stop_looks_again: Cut::Rule(Guard::StopLooks);
    marks_come_before_the_answer: Cut::Rule(Guard::MarkBeforeRead);
    tasks_in_the_middle_wait: Cut::Rule(Guard::Patience);
    nobody_is_disturbed_early: Cut::Rule(Guard::Undisturbed);
    the_boundary_looks_at_the_stack: Cut::Rule(Guard::BoundaryStack);
    tables_are_frozen: Cut::Rule(Guard::FreezeTable);
    newborn_tasks_run_the_goal: Cut::Rule(Guard::NewbornRunsGoal);
    requests_are_recalled_before_the_table_goes: Cut::Rule(Guard::RecallBeforeFree);
    the_table_waits_for_rcu_tasks: Cut::Rule(Guard::RcuBeforeFree);
    the_stop_waits_for_who_is_off_the_list: Cut::Rule(Guard::RcuBeforeStop);
    draining_waits_for_who_is_off_the_list: Cut::Rule(Guard::RcuBeforeDrained);
    leaving_waits_for_everybody: Cut::Rule(Guard::LeaveWatch);
    leaving_waits_for_rcu_tasks: Cut::Rule(Guard::RcuBeforeLeave);
    the_stop_does_not_walk_who_runs_it: Cut::Rule(Guard::KnownTasks);
    all_functions_follow_in_one_stop: Cut::Rule(Guard::SettleInStop);
    the_clock_is_that_of_the_operation: Cut::Rule(Guard::FreshClock);
    threads_are_not_sent_to_user_mode: Cut::Rule(Guard::AskWhoWasSeen);
    what_is_below_a_replaced_patch_is_held: Cut::Rule(Guard::HoldWhatIsBelow);
    nobody_calls_past_a_patch_on_top: Cut::Rule(Guard::NoBypass);
    the_old_version_is_that_below: Cut::Rule(Guard::OldIsBelow);
    lp_original_leads_below: Cut::Rule(Guard::OriginalIsBelow);
    the_old_version_is_what_is_left: Cut::Rule(Guard::OldAfterwards);
    sites_come_back_to_what_is_left: Cut::Rule(Guard::ComeBackToTheRest);
    replaced_dispatchers_follow: Cut::Rule(Guard::Follow);
    replaced_dispatchers_follow_no_longer: Cut::Rule(Guard::FollowNoLonger);
    replaced_patches_are_watched: Cut::Rule(Guard::ReplacedWatch);
    replaced_patches_wait_for_rcu_tasks: Cut::Rule(Guard::RcuBeforeReplaced);
    a_veto_ends_it: Cut::Rule(Guard::VetoEnds);
    what_a_callback_did_is_undone: Cut::Rule(Guard::UndoCallback);
    full_tables_are_noticed: Cut::Rule(Guard::NoticeFull);
    a_census_is_complete: Cut::Rule(Guard::WholeCensus);
    a_watch_is_complete: Cut::Rule(Guard::WholeWatch);
    modules_do_not_come_during_a_step: Cut::HoldersLock;
    who_comes_is_told_of_before_who_is_here_is_looked_for: Cut::RegisterFirst;
    half_loaded_modules_are_waited_for: Cut::OnlyPassed;
    modules_that_go_are_left_alone: Cut::NotGoing;
    what_comes_when_a_patch_leaves_is_left_alone: Cut::CloseFirst;
    another_build_is_left_alone: Cut::Rule(Guard::ModuleId);
    fields_are_filled_in_anew: Cut::Rule(Guard::FieldsAnew);
    what_is_brought_begins_anew: Cut::Rule(Guard::DataAnew);
    sites_of_modules_are_compared: Cut::Rule(Guard::LateSites);
    modules_that_come_are_as_the_others: Cut::Rule(Guard::JoinAsOthers);
    modules_that_go_are_put_back: Cut::Rule(Guard::RestoreAtGoing);
    jumps_in_modules_wait_for_rcu_tasks: Cut::Rule(Guard::TailAtGoing);
    the_upper_patch_leaves_a_module_first: Cut::UpperFirst;
    constants_are_compared: Cut::Rule(Guard::CheckData);
    constants_wait_for_old_code: Cut::Rule(Guard::DataBehindOldCode);
    constants_go_before_old_code: Cut::Rule(Guard::DataBeforeOldCode);
    constants_change_in_the_stop: Cut::Rule(Guard::DataInTheStop);
}
