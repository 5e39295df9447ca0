//! A program in a sandbox of its own: whatever it was not made for ends it.

use std::io::Error;

use anyhow::{Context, Result, bail};

use crate::exactly;

/// BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K (include/uapi/linux/bpf_common.h).
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Asleep in nanosleep(2), from a process that may only sleep, write and exit: `restart_syscall`, which the kernel lets it call
/// when something like a signal comes, is its end.
pub fn sandboxed(args: &[String]) -> Result<()> {
    let [seconds] = exactly(args, "sandboxed SECONDS")?;
    let sleep = libc::timespec { tv_sec: seconds.parse().context("SECONDS")?, tv_nsec: 0 };
    let insn = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut filter = vec![insn(LOAD, 0, 0)];
    for call in [libc::SYS_nanosleep, libc::SYS_write, libc::SYS_exit_group] {
        filter.push(insn(EQUAL, 1, u32::try_from(call)?));
        filter.push(insn(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    }
    filter.push(insn(RETURN, 0, libc::SECCOMP_RET_KILL_PROCESS));
    let program = libc::sock_fprog { len: u16::try_from(filter.len())?, filter: filter.as_mut_ptr() };
    // SAFETY: there is one thread; the child makes system calls only, with what was prepared above, and ends.
    let pid = unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0 {
                libc::_exit(3);
            }
            let slept = libc::syscall(libc::SYS_nanosleep, &raw const sleep, 0usize);
            libc::syscall(libc::SYS_exit_group, i32::from(slept != 0));
        }
        pid
    };
    if pid < 0 {
        bail!("fork: {}", Error::last_os_error());
    }
    println!("RESULT pid={pid}");
    let mut status = 0;
    // SAFETY: `status` is writable.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
        bail!("waitpid: {}", Error::last_os_error());
    }
    match libc::WIFSIGNALED(status) {
        true => println!("RESULT sandboxed=signal{}", libc::WTERMSIG(status)),
        false => println!("RESULT sandboxed=exit{}", libc::WEXITSTATUS(status)),
    }
    Ok(())
}
