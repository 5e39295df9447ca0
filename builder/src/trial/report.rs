//! What a trial comes to: the problems, the table for people, the JSON for programs.
//!
//! Input: the steps and the end of the guest. Output: [`TrialReport`]. Everything that speaks against the patch is a problem;
//! what is only worth knowing is a note.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::TrialOptions;
use super::console::ConsoleVerdict;
use super::guest::STAYED;
use super::qemu::{End, Machine};
use super::steps::{Steps, TrialStep};
use super::targets::Target;
use crate::codes;
use crate::error::{Place, Problem};
use crate::explain::Explanation;
use crate::plan::manifest::Kernel;

use crate::host::{ModuleFile, pause};

/// Lines of the kernel log shown from a fault on, and of a script's output in the table.
const SHOWN: usize = 40;
/// Taint flags that say the kernel was hurt: bad page, died, warned, soft lockup (Documentation/admin-guide/tainted-kernels.rst).
const TAINT_BAD_PAGE: u64 = 1 << 5;
const TAINT_DIE: u64 = 1 << 7;
const TAINT_WARN: u64 = 1 << 9;
const TAINT_SOFT_LOCKUP: u64 = 1 << 14;

/// The result of a trial.
#[derive(Clone, Debug, Serialize)]
pub struct TrialReport {
    /// `pass` or `fail`.
    pub verdict: &'static str,
    /// Name of the patch.
    pub name: String,
    /// Version of the patch.
    pub version: String,
    /// The module.
    pub module: PathBuf,
    /// Release of the kernel that was booted.
    pub release: String,
    /// Its build id, lower-case hex.
    pub build_id: String,
    /// The image that was booted.
    pub image: PathBuf,
    /// `kvm` or `tcg`.
    pub accelerator: &'static str,
    /// CPUs of the guest.
    pub cpus: u32,
    /// Memory of the guest in MiB.
    pub memory_mib: u32,
    /// Cycles asked for.
    pub cycles: u32,
    /// Seconds from the start of QEMU to its end.
    pub took_s: f64,
    /// What was done, in order.
    pub steps: Vec<StepReport>,
    /// Replaced functions as the kernel showed them in the first cycle.
    pub functions: Vec<Value>,
    /// What the check scripts printed.
    pub outputs: Outputs,
    /// Whether one script printed the same after the unload as before the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_equals_before: Option<bool>,
    /// Modules that the patch has functions of and that were here all the time: they could not be removed before it was loaded.
    pub stayed: Vec<String>,
    /// Worth knowing, and no failure.
    pub notes: Vec<String>,
    /// Why the trial failed.
    pub refused: Vec<Problem>,
    /// Lines of the console that go with it: the kernel's complaint, or the end.
    pub console: Vec<String>,
    /// What the module tells of its patch; what it keeps for that may be damaged, and then the manifest alone is told.
    #[serde(skip)]
    pub explanation: Explanation,
}

/// A step of the trial.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// `boot`, `before`, `load`, `during`, `status`, `unload`, `gone`, `after`.
    pub step: String,
    /// Cycle it belongs to, from 1; absent: to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycle: Option<u32>,
    /// Milliseconds of the host, as far as its polling tells.
    pub host_ms: u64,
    /// Milliseconds of the guest, in steps of 10.
    pub guest_ms: u64,
    /// Exit status; absent: the guest ended first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// Milliseconds the command on the target measured itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Attempts to apply or revert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    /// Longest stop of the machine, nanoseconds of the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_ns: Option<u64>,
    /// In a few words.
    pub result: String,
}

/// What the check scripts printed; of `during` in the first cycle, or the one in which it failed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outputs {
    /// Before the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Vec<String>>,
    /// While the patch was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub during: Option<Vec<String>>,
    /// After the unload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<String>>,
}

/// Puts everything together.
pub(super) fn report(
    options: &TrialOptions,
    module: &ModuleFile,
    kernel: &Kernel,
    targets: &[Target],
    machine: &Machine,
    end: &End,
    steps: &Steps<'_>,
) -> TrialReport {
    let all = &steps.steps;
    let first = |name: &str| all.iter().find(|s| s.name == name);
    let output = |name: &str| {
        let failed = all.iter().find(|s| s.name == name && s.status != Some(0));
        failed.or(first(name)).map(|s| s.output.clone())
    };
    let outputs = Outputs { before: output("before"), during: output("during"), after: output("after") };
    let finished = |name: &str| first(name).is_some_and(|s| s.status.is_some());
    let after_equals_before =
        (options.scripts.same && finished("before") && finished("after")).then(|| outputs.before == outputs.after);
    let mut notes = Vec::new();
    if module.manifest.patch.oneshot {
        notes.push(
            "the patch is oneshot: it was loaded once and not unloaded, and nothing was checked after it".to_owned(),
        );
    }
    // What has no way out of the kernel was never asked to go.
    let fixed = targets.iter().filter(|t| t.patched && !t.file.leaves);
    let fixed = fixed.map(|t| (t.file.name.as_str(), "it has no exit function"));
    let stayed: Vec<(&str, &str)> = fixed.chain(all.iter().flat_map(stayed)).collect();
    for (name, why) in &stayed {
        notes.push(format!("{name} cannot be removed, patch or not ({why}): it was here all the time, and never away"));
    }
    let mut refused = problems(options, end, all, &module.manifest.patch.name);
    if after_equals_before == Some(false) {
        let detail = "what the script printed after the unload is not what it printed before the load";
        match options.strict {
            true => refused.push(Problem::new(codes::LP6410, Place::default(), detail)),
            false => notes.push(detail.to_owned()),
        }
    }
    if options.scripts.same && outputs.during.is_some() && outputs.during == outputs.before {
        notes.push("the script printed the same with the patch as without it: it does not show the patch".to_owned());
    }
    let console = if refused.is_empty() { Vec::new() } else { excerpt(end, steps) };
    let functions = first("load").and_then(json).and_then(|j| j.get("functions")?.as_array().cloned());
    TrialReport {
        verdict: if refused.is_empty() { "pass" } else { "fail" },
        name: module.manifest.patch.name.clone(),
        version: module.manifest.patch.version.clone(),
        module: options.module.clone(),
        release: kernel.release.clone(),
        build_id: kernel.build_id.clone(),
        image: machine.image.clone(),
        accelerator: if end.emulated { "tcg" } else { "kvm" },
        cpus: machine.cpus,
        memory_mib: machine.memory_mib,
        cycles: options.cycles,
        took_s: end.took.as_secs_f64(),
        steps: all.iter().filter(|s| s.name != "end").map(step).collect(),
        functions: functions.unwrap_or_default(),
        outputs,
        after_equals_before,
        stayed: stayed.into_iter().map(|(name, _)| name.to_owned()).collect(),
        notes,
        refused,
        console,
        explanation: module.explanation().unwrap_or_else(|_| Explanation::of(module.manifest.clone(), None)),
    }
}

/// Modules that did not go before the patch was loaded, and why.
fn stayed(s: &TrialStep) -> impl Iterator<Item = (&str, &str)> {
    let lines = if s.name == "absent" { s.output.as_slice() } else { &[] };
    lines.iter().filter_map(|l| l.strip_prefix(STAYED)?.trim_start().split_once(' '))
}

/// Why the trial failed; nothing when it did not.
fn problems(options: &TrialOptions, end: &End, steps: &[TrialStep], name: &str) -> Vec<Problem> {
    let mut found = Vec::new();
    for s in steps.iter().filter(|s| s.status.is_some_and(|n| n != 0)) {
        let status = s.status.unwrap_or_default();
        match s.name.as_str() {
            "before" | "during" | "after" => {
                let detail = format!("{} ended with status {status}{}", s.name, in_cycle(s));
                found.push(Problem::new(codes::LP6407, Place::default(), detail));
            }
            "load" | "status" | "unload" => found.extend(inner(s, name, status)),
            "gone" => found.push(Problem::new(codes::LP6412, Place::object(name), s.output.join("; "))),
            _ => {
                let detail = format!("{} ended with status {status}: {}", s.name, s.output.join("; "));
                found.push(Problem::new(codes::LP6409, Place::default(), detail));
            }
        }
    }
    for s in steps.iter().filter(|s| s.name == "status" && s.status == Some(0)) {
        let state = json(s).and_then(|j| Some(j.get("patches")?.get(0)?.get("state")?.as_str()?.to_owned()));
        // A patch that drains is in effect; some task of the trial is still in old code.
        if !matches!(state.as_deref(), Some("applied" | "draining")) {
            let detail = format!("it is {} after the load{}", state.as_deref().unwrap_or("unknown"), in_cycle(s));
            found.push(Problem::new(codes::LP6412, Place::object(name), detail));
        }
    }
    let at = steps.last().filter(|s| s.status.is_none());
    let at = at.map_or(String::new(), |s| format!(" ({}{})", s.name, in_cycle(s)));
    match &end.verdict {
        ConsoleVerdict::Fault(line) => {
            found.push(Problem::new(codes::LP6408, Place::default(), format!("{}{at}", line.trim())));
        }
        ConsoleVerdict::Pass => found.extend(hurt(options, steps)),
        ConsoleVerdict::Fail(_) if !found.is_empty() => {}
        other => found.push(Problem::new(codes::LP6409, Place::default(), format!("{}{at}", ended(other)))),
    }
    found
}

fn in_cycle(s: &TrialStep) -> String {
    if s.cycle > 1 { format!(" in cycle {}", s.cycle) } else { String::new() }
}

/// The problems a command inside the guest printed as JSON.
fn inner(s: &TrialStep, name: &str, status: i32) -> Vec<Problem> {
    let listed = json(s).and_then(|j| j.get("refused")?.as_array().cloned()).unwrap_or_default();
    let problem = |p: &Value| {
        let text = |key: &str| p.get(key).and_then(Value::as_str).map(str::to_owned);
        let place = Place {
            object: text("object"),
            section: text("section"),
            symbol: text("symbol"),
            offset: p.get("offset").and_then(Value::as_u64),
        };
        let detail = text("detail").unwrap_or_default();
        Some(Problem {
            code: codes::find(&text("code")?)?,
            place,
            detail: format!("{detail}{}", in_cycle(s)),
            accept: None,
        })
    };
    let problems: Vec<Problem> = listed.iter().filter_map(problem).collect();
    if !problems.is_empty() {
        return problems;
    }
    let said = s.output.join("; ");
    let detail = format!("lpbuild {} ended with status {status}{}: {said}", s.name, in_cycle(s));
    vec![Problem::new(codes::LP6411, Place::object(name), detail)]
}

/// Damage that the kernel's taint flags show although no line of the log did.
fn hurt(options: &TrialOptions, steps: &[TrialStep]) -> Option<Problem> {
    let flags = |name: &str| steps.iter().find(|s| s.name == name)?.output.first()?.trim().parse::<u64>().ok();
    let new = flags("end")? & !flags("boot")?;
    // An allowed warning taints as any other.
    let warn = if options.allow.is_empty() { TAINT_WARN } else { 0 };
    let bad = new & (TAINT_BAD_PAGE | TAINT_DIE | TAINT_SOFT_LOCKUP | warn);
    let detail = format!("the kernel is tainted ({bad:#x}) and was not before");
    (bad != 0).then(|| Problem::new(codes::LP6408, Place::object("/proc/sys/kernel/tainted"), detail))
}

/// How a guest ended, for people.
pub(super) fn ended(verdict: &ConsoleVerdict) -> String {
    match verdict {
        ConsoleVerdict::Pass => "the guest passed".to_owned(),
        ConsoleVerdict::Fail(reason) => format!("the guest said: {reason}"),
        ConsoleVerdict::Fault(line) => format!("the kernel said: {}", line.trim()),
        ConsoleVerdict::Silent(limit) => format!("the guest printed nothing for {} s and was stopped", limit.as_secs()),
        ConsoleVerdict::Overtime(limit) => format!("the guest was stopped after {} s", limit.as_secs()),
        ConsoleVerdict::None => "the guest ended without a verdict".to_owned(),
        ConsoleVerdict::Several(n) => {
            format!("the guest printed {n} verdicts; one is printed by its PID 1 and none by a script")
        }
    }
}

/// From the kernel's complaint on, else the end of the console.
fn excerpt(end: &End, steps: &Steps<'_>) -> Vec<String> {
    let Some(fault) = &end.transcript.fault else { return steps.tail.iter().cloned().collect() };
    let kernel = &end.transcript.kernel;
    let from = kernel.iter().position(|l| l == fault).unwrap_or(0);
    kernel.iter().skip(from).take(SHOWN).map(|l| format!("k| {l}")).collect()
}

/// The object a command inside the guest printed.
fn json(s: &TrialStep) -> Option<Value> {
    let from = s.output.iter().position(|l| l.starts_with('{'))?;
    let text = s.output.get(from..)?.join("\n");
    serde_json::Deserializer::from_str(&text).into_iter::<Value>().next()?.ok()
}

fn step(s: &TrialStep) -> StepReport {
    let json = json(s);
    let number = |key: &str| json.as_ref().and_then(|j| j.get(key)?.as_u64());
    let result = match (s.status, s.name.as_str()) {
        (None, _) => "did not end".to_owned(),
        (Some(0), "boot") => String::new(),
        (Some(0), "gone") => "nothing left".to_owned(),
        (Some(0), "absent") if stayed(s).next().is_some() => {
            let names: Vec<&str> = stayed(s).map(|(name, _)| name).collect();
            format!("exit 0, {} cannot go", names.join(" and "))
        }
        (Some(0), "load" | "unload") => {
            let state = json.as_ref().and_then(|j| j.get("state")?.as_str()).unwrap_or("done").to_owned();
            let attempts = number("attempts").unwrap_or(0);
            let plural = if attempts == 1 { "" } else { "s" };
            format!("{state}, {attempts} attempt{plural}, pause {}", pause(number("pause_ns").unwrap_or(0)))
        }
        (Some(0), "status") => {
            let state = json.as_ref().and_then(|j| j.get("patches")?.get(0)?.get("state")?.as_str());
            state.unwrap_or("unknown").to_owned()
        }
        (Some(n), "before" | "during" | "after") => {
            let plural = if s.output.len() == 1 { "" } else { "s" };
            format!("exit {n}, {} line{plural}", s.output.len())
        }
        (Some(n), _) => format!("exit {n}"),
    };
    StepReport {
        step: s.name.clone(),
        cycle: (s.cycle > 0).then_some(s.cycle),
        host_ms: millis(s.host),
        guest_ms: millis(s.guest),
        status: s.status,
        took_ms: number("took_ms"),
        attempts: number("attempts"),
        pause_ns: number("pause_ns"),
        result,
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::console::Transcript;
    use super::super::{Scripts, TrialOptions};
    use super::*;

    fn ran(name: &str, status: Option<i32>, output: &[&str]) -> TrialStep {
        let output = output.iter().map(ToString::to_string).collect();
        TrialStep { name: name.into(), cycle: 1, host: Duration::ZERO, guest: Duration::ZERO, status, output }
    }

    fn codes(verdict: ConsoleVerdict, steps: &[TrialStep], allow: &[&str]) -> Vec<(&'static str, String)> {
        let options = TrialOptions {
            module: "m.ko".into(),
            image: None,
            scripts: Scripts::default(),
            emulate: false,
            cpus: 1,
            memory_mib: None,
            append: String::new(),
            modules: None,
            targets: Vec::new(),
            add: Vec::new(),
            allow: allow.iter().map(ToString::to_string).collect(),
            timeout: None,
            silence: None,
            cycles: 1,
            strict: false,
            log: None,
        };
        let end = End { verdict, transcript: Transcript::default(), took: Duration::ZERO, emulated: true };
        problems(&options, &end, steps, "fix").into_iter().map(|p| (p.code.id, p.detail)).collect()
    }

    #[test]
    fn a_refusal_inside_the_guest_keeps_its_code_and_anything_else_gets_one() {
        let said = [
            "noise",
            "{ \"refused\": [",
            "{\"code\": \"LP5007\", \"object\": \"m\", \"detail\": \"busy\"}",
            "]}",
            "refused: ..",
        ];
        let fail = || ConsoleVerdict::Fail("load ended with status 4".into());
        assert_eq!(codes(fail(), &[ran("load", Some(4), &said)], &[]), [("LP5007", "busy".into())]);
        for odd in [&["Segmentation fault"][..], &["{\"refused\": [{\"code\": \"LP9999\"}]}"], &["{"], &[]] {
            assert_eq!(codes(fail(), &[ran("unload", Some(139), odd)], &[])[0].0, "LP6411", "{odd:?}");
        }
    }

    #[test]
    fn a_pass_with_a_patch_in_the_wrong_state_or_a_hurt_kernel_is_none() {
        let status = |state: &str| ran("status", Some(0), &[&format!("{{\"patches\": [{{\"state\": \"{state}\"}}]}}")]);
        assert!(codes(ConsoleVerdict::Pass, &[status("applied")], &[]).is_empty());
        assert!(codes(ConsoleVerdict::Pass, &[status("draining")], &[]).is_empty());
        assert_eq!(codes(ConsoleVerdict::Pass, &[status("reverted")], &[])[0].0, "LP6412");
        assert_eq!(codes(ConsoleVerdict::Pass, &[ran("status", Some(0), &["{}"])], &[])[0].0, "LP6412");
        assert_eq!(
            codes(ConsoleVerdict::Fail("gone".into()), &[ran("gone", Some(1), &["the module is still there"])], &[])[0]
                .0,
            "LP6412"
        );
        // Out-of-tree and unsigned modules taint as well; warnings and deaths count, unless they were there before.
        let tainted = |before: &str, after: &str| [ran("boot", Some(0), &[before]), ran("end", Some(0), &[after])];
        assert!(codes(ConsoleVerdict::Pass, &tainted("0", "12288"), &[]).is_empty());
        assert!(codes(ConsoleVerdict::Pass, &tainted("512", "12800"), &[]).is_empty());
        assert_eq!(codes(ConsoleVerdict::Pass, &tainted("0", "12800"), &[])[0].0, "LP6408");
        assert!(codes(ConsoleVerdict::Pass, &tainted("0", "12800"), &["WARNING: known"]).is_empty());
        assert_eq!(codes(ConsoleVerdict::Pass, &tainted("0", "128"), &["WARNING: known"])[0].0, "LP6408");
    }

    #[test]
    fn who_cannot_go_before_the_load_is_no_problem_and_who_does_not_behind_it_is_one() {
        let said = ["stays: sctp rmmod: remove 'sctp': Resource temporarily unavailable"];
        let absent = ran("absent", Some(0), &said);
        assert!(codes(ConsoleVerdict::Pass, std::slice::from_ref(&absent), &[]).is_empty());
        let expected = ("sctp", "rmmod: remove 'sctp': Resource temporarily unavailable");
        assert_eq!(stayed(&absent).collect::<Vec<_>>(), [expected]);
        assert_eq!(step(&absent).result, "exit 0, sctp cannot go");
        // A script can print what it likes.
        assert_eq!(stayed(&ran("during", Some(0), &said)).count(), 0);
        let fail = || ConsoleVerdict::Fail("leave ended with status 1".into());
        for name in ["absent", "leave"] {
            assert_eq!(codes(fail(), &[ran(name, Some(1), &["rmmod: busy"])], &[])[0].0, "LP6409", "{name}");
        }
    }

    #[test]
    fn every_end_but_one_verdict_of_pid_1_is_a_failure_and_names_the_step() {
        let running = [ran("during", None, &[])];
        for verdict in [
            ConsoleVerdict::None,
            ConsoleVerdict::Several(2),
            ConsoleVerdict::Silent(Duration::from_secs(1)),
            ConsoleVerdict::Overtime(Duration::from_secs(1)),
            ConsoleVerdict::Fail("for no reason".into()),
        ] {
            let found = codes(verdict.clone(), &running, &[]);
            assert!(
                found.len() == 1 && found[0].0 == "LP6409" && found[0].1.ends_with("(during)"),
                "{verdict:?}: {found:?}"
            );
        }
        let fault = ConsoleVerdict::Fault("[1.0] BUG: oops ".into());
        assert_eq!(codes(fault, &running, &[]), [("LP6408", "[1.0] BUG: oops (during)".into())]);
    }
}
