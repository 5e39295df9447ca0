//! Tests side by side, the longest first, whatever program they are in.
//!
//! Input: [`Job`]s in the order in which they are begun, and those that have to wait for something. Output: what became of
//! each. How many guests run at a time is no matter of this pool: the tests themselves wait for a place
//! (`harness::cache::slots`), and others compile meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::job::{Done, Job, Outcome};

/// After this long without a result, what is running is said.
const QUIET: Duration = Duration::from_secs(30);

/// What is still to be run.
struct Queue<'a> {
    ready: VecDeque<Job>,
    /// Begun when nothing else is left or `may_start`.
    waiting: VecDeque<Job>,
    may_start: &'a AtomicBool,
}

impl Queue<'_> {
    /// The next job; `None` with `true` when one has to be waited for.
    fn next(&mut self) -> (Option<Job>, bool) {
        if self.may_start.load(Ordering::Acquire) {
            self.ready.extend(self.waiting.drain(..));
        }
        (self.ready.pop_front(), !self.waiting.is_empty())
    }
}

/// Runs all of them, `workers` at a time; `waiting` only once `may_start` is true.
pub fn run(
    ready: Vec<Job>,
    waiting: Vec<Job>,
    may_start: &AtomicBool,
    workers: usize,
    env: &[(String, OsString)],
) -> Vec<Done> {
    let all = ready.len() + waiting.len();
    let queue = Mutex::new(Queue { ready: ready.into(), waiting: waiting.into(), may_start });
    let running: Mutex<BTreeMap<String, Instant>> = Mutex::default();
    let (send, results) = mpsc::channel::<Done>();
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            let (queue, running, send) = (&queue, &running, send.clone());
            scope.spawn(move || {
                loop {
                    let (job, wait) = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(job) = job else {
                        if !wait {
                            return;
                        }
                        std::thread::sleep(Duration::from_millis(500));
                        continue;
                    };
                    let name = job.name();
                    let of = || running.lock().unwrap_or_else(PoisonError::into_inner);
                    of().insert(name.clone(), Instant::now());
                    let done = job.run(env);
                    of().remove(&name);
                    if send.send(done).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut done = Vec::new();
        loop {
            match results.recv_timeout(QUIET) {
                Ok(one) => {
                    show(&one);
                    done.push(one);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let running = running.lock().unwrap_or_else(PoisonError::into_inner);
                    let list: Vec<String> = running
                        .iter()
                        .map(|(name, since)| format!("{name} ({} s)", since.elapsed().as_secs()))
                        .collect();
                    let what =
                        if list.is_empty() { "waiting for the kernels of our own".into() } else { list.join(", ") };
                    println!("{} of {all} done; running: {what}", done.len());
                }
                Err(RecvTimeoutError::Disconnected) => return done,
            }
        }
    })
}

/// Runs again, one after another and beside nothing, what failed for want of time: if it passes alone, it has passed.
pub fn again(done: &mut [Done], jobs: &[Job], env: &[(String, OsString)]) {
    for one in done.iter_mut().filter(|d| d.lacked_time()) {
        let Some(job) = jobs.iter().find(|j| j.name() == one.name) else { continue };
        println!("{} lacked time beside others; once more, alone", one.name);
        *one = Done { alone: true, ..job.run(env) };
        show(one);
    }
}

fn show(done: &Done) {
    let word = match done.outcome {
        Outcome::Passed => "ok",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "skipped",
    };
    let cpu = done.cpu.map_or(String::new(), |cpu| format!(" {cpu:6.1} s CPU"));
    println!("{word:7} {:6.1} s{cpu}  {}", done.took, done.name);
    for line in &done.said {
        println!("    {line}");
    }
}
