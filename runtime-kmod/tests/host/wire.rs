//! The numbers both halves of the runtime know are the same in both.

use std::collections::BTreeMap;

use lpbuild_abi::{Callback, Region};
use lpbuild_runtime::status::State;
use lpbuild_runtime::wire;

const HEADER: &str = include_str!("../../c/lp-runtime.h");

/// Every `#define LPB_NAME number` and every member of an `enum` of the header.
fn header() -> BTreeMap<String, i64> {
    let mut all = BTreeMap::new();
    for line in HEADER.lines() {
        let mut words = line.split_whitespace();
        if let (Some("#define"), Some(name), Some(_)) = (words.next(), words.next(), words.next())
            && let Some(name) = name.strip_prefix("LPB_")
        {
            let value = line.split_once(name).unwrap().1.trim().trim_matches(['(', ')']);
            all.insert(name.to_owned(), number(value));
        }
    }
    for list in HEADER.split("enum {").skip(1) {
        let members = list.split('}').next().unwrap().split(',').map(str::trim).filter(|m| !m.is_empty());
        for (value, member) in members.enumerate() {
            all.insert(member.trim_start_matches("LPB_").to_owned(), value as i64);
        }
    }
    all
}

fn number(text: &str) -> i64 {
    let max = i64::from(i32::MAX);
    match text.strip_prefix("INT_MAX") {
        Some("") => max,
        Some(rest) => max - rest.trim().trim_start_matches('-').trim().parse::<i64>().unwrap(),
        None => match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).unwrap(),
            None => text.parse().unwrap(),
        },
    }
}

#[test]
fn both_halves_count_alike() {
    let header = header();
    let mut ours: BTreeMap<String, i64> = BTreeMap::new();
    for (name, value) in [
        ("RCU_TASKS", wire::RCU_TASKS),
        ("EFFECTIVE", wire::EFFECTIVE),
        ("LET_GO", wire::LET_GO),
        ("NOW", wire::NOW),
        ("CALL", wire::CALL),
        ("BLOCKED", wire::BLOCKED),
        ("KERNEL", wire::KERNEL),
    ] {
        ours.insert(name.into(), value.into());
    }
    ours.insert("SHADOW_NAME".into(), lpbuild_abi::SHADOW_NAME as i64);
    for (name, region) in [
        ("TEXT", Region::Text),
        ("RODATA", Region::Rodata),
        ("RO_AFTER_INIT", Region::RoAfterInit),
        ("DATA", Region::Data),
        ("PERCPU", Region::Percpu),
    ] {
        ours.insert(format!("REGION_{name}"), region as i64);
    }
    for file in wire::SHOW {
        ours.insert(format!("SHOW_{file}"), wire::show(file).into());
    }
    for callback in Callback::ALL {
        ours.insert(callback.name().replace('-', "_").to_uppercase(), callback as i64);
    }
    for state in [
        State::Applying,
        State::Applied,
        State::Reverting,
        State::Reverted,
        State::Refused,
        State::Draining,
        State::Checked,
        State::Replaced,
    ] {
        ours.insert(state.name().to_uppercase(), state as i64);
    }
    for (name, value) in &ours {
        assert_eq!(header.get(name), Some(value), "LPB_{name}");
    }
    // The C half alone knows what its thread is asked to do, and what a look at a task ended with.
    let alone: Vec<&String> = header.keys().filter(|n| !ours.contains_key(*n)).collect();
    assert_eq!(alone, ["APPLY", "DEAD", "LOOKED", "OFFLINE", "REHEARSE", "REVERT", "RUNNING"]);
}
