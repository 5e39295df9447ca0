//! An int3 that only the emulator still has.
//!
//! QEMU with a thread per CPU throws translated code away before it does the store that changes it (`notdirty_write`,
//! accel/tcg/cputlb.c); a CPU that translates in between keeps the old byte, and nothing tells it later. The kernel changes
//! code of its own all the time (tracepoints, jump labels, ftrace: `text_poke_bp_batch`, arch/x86/kernel/alternative.c), with
//! an int3 as the last but one byte. On a loaded host such a guest now and then dies of an int3 that is in no memory any
//! more. CPUs that take turns ([`Accel::Turns`](super::qemu::Accel)) do not have the gap: a fault that is
//! not the emulator's can come again there, though one that needs two CPUs at one instant comes more rarely. The cause is read in
//! QEMU's source; it was seen once, and not brought about on purpose.
//!
//! Input: lines of the kernel log. Output: where it was. Not taken for one: an int3 that is still in memory, and the
//! beginning of a function, where the int3s of patches are: whatever is wrong there may be a patch's own fault.

/// A site, whose first byte is the int3, begins within this many bytes of a function.
const ENTRY: u64 = 0x20;
/// The kernel prints the registers behind the fault; other CPUs may get lines in between.
const LINES: usize = 40;

/// Where the kernel died of an int3 that is not in memory, as `function+0x8d`; nothing for any other fault.
pub fn int3_not_in_memory(kernel: &[String]) -> Option<String> {
    let fault = kernel.iter().position(|l| l.contains("int3: 0000 [#1]"))?;
    let report = &kernel[fault..kernel.len().min(fault + LINES)];
    let behind = |mark: &str| report.iter().find_map(|l| l.split_once(mark)).map(|(_, rest)| rest.trim());
    let place = behind("RIP: 0010:")?.split('/').next()?;
    let (_, offset) = place.split_once("+0x")?;
    if u64::from_str_radix(offset, 16).ok()? <= ENTRY {
        return None;
    }
    // The address is that behind the int3: `.. eb <5a> ..`.
    let bytes = behind("Code: ")?;
    let before = bytes.split_once(" <")?.0.rsplit(' ').next()?;
    (before != "cc").then(|| place.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(fault: &str, place: &str, code: &str) -> Vec<String> {
        [
            "[   60.1] a line before",
            &format!("[   61.1] {fault}"),
            "[   61.2] CPU: 1 UID: 0 PID: 77 Comm: cat Not tainted",
            &format!("[   61.3] RIP: 0010:{place}"),
            &format!("[   61.4] Code: {code}"),
        ]
        .map(str::to_string)
        .to_vec()
    }

    #[test]
    fn only_an_int3_that_is_gone_and_not_at_an_entry_is_the_emulators() {
        let int3 = "Oops: int3: 0000 [#1] PREEMPT SMP NOPTI";
        let gone = "0b b2 ff ff eb <5a> 48 8b";
        let place = "ttwu_do_activate+0x8d/0x220";
        assert_eq!(int3_not_in_memory(&log(int3, place, gone)).as_deref(), Some("ttwu_do_activate+0x8d"));
        // 6.1 writes it so.
        assert!(int3_not_in_memory(&log("int3: 0000 [#1] PREEMPT SMP NOPTI", place, gone)).is_some());
        assert!(int3_not_in_memory(&log(int3, place, "0b b2 ff ff cc <5a> 48 8b")).is_none(), "still in memory");
        assert!(int3_not_in_memory(&log(int3, "cmdline_proc_show+0x5/0x40", gone)).is_none(), "where sites are");
        assert!(int3_not_in_memory(&log("Oops: 0000 [#1] SMP", place, gone)).is_none(), "another fault");
        assert!(int3_not_in_memory(&log(int3, "0xffffffffc0001234", gone)).is_none(), "no function");
        assert!(int3_not_in_memory(&log(int3, place, "Unable to access opcode bytes")).is_none());
        assert!(int3_not_in_memory(&[]).is_none());
    }
}
