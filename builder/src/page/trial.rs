//! What a trial came to: steps with their times, functions as the kernel showed them, what the scripts printed, and the verdict.

use maud::{Markup, html};

use crate::host::pause;
use crate::trial::TrialReport;

/// Lines of a script's output that are shown.
const LINES: usize = 200;

pub(super) fn section(t: &TrialReport) -> Markup {
    let (class, word) = if t.verdict == "pass" { ("good", "PASS") } else { ("bad", "FAIL") };
    let how = if t.accelerator == "kvm" { "with KVM" } else { "emulated" };
    html! {
        h2 #trial { "The trial " span.verdict.(class) { (word) } }
        dl {
            dt { "Kernel" } dd { (t.release) ", " code { (t.image.display()) } }
            dt { "Guest" } dd { (t.cpus) " CPUs, " (t.memory_mib) " MiB, " (how) ", " (t.cycles) " cycle" @if t.cycles != 1 { "s" } ", "
                (format!("{:.1} s", t.took_s)) }
        }
        div.wide { table.stack {
            thead { tr { th { "Step" } th.n { "Cycle" } th.n { "Host" } th.n { "Guest" } th.n { "Pause" } th { "Result" } } }
            @for s in &t.steps {
                tr {
                    td.k { (s.step) }
                    td.n data-h="cycle" { @if let Some(c) = s.cycle { (c) } @else { "–" } }
                    td.n data-h="host" { (s.host_ms) " ms" }
                    td.n data-h="guest" { (s.guest_ms) " ms" }
                    td.n data-h="pause" { @if let Some(p) = s.pause_ns { (pause(p)) } @else { "–" } }
                    td { (s.result) }
                }
            }
        } }
        @let outputs = [("before", &t.outputs.before), ("during", &t.outputs.during), ("after", &t.outputs.after)];
        @if outputs.iter().any(|(_, o)| o.is_some()) {
            h4 { "What the scripts printed" }
            div.sides {
                @for (name, lines) in outputs { @if let Some(lines) = lines { div {
                    p.dim { (name) }
                    pre { @for line in lines.iter().take(LINES) { (line) "\n" }
                        @if lines.len() > LINES { "… " (lines.len() - LINES) " more lines" } }
                } } }
            }
        }
        @if !t.notes.is_empty() { h4 { "Notes" } ul { @for n in &t.notes { li { (n) } } } }
        @if !t.console.is_empty() { h4 { "Console" } pre { @for line in &t.console { (line) "\n" } } }
    }
}
