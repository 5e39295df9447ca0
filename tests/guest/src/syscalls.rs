//! System calls no shell makes: directory reads into nowhere, the kernel log's console switch, a short auxiliary vector.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::exactly;
use crate::probe::BAD_POINTER;

/// getdents64(2) with a pointer nothing is mapped at; prints the errno.
pub fn faulting_getdents(args: &[String]) -> Result<()> {
    let [path] = exactly(args, "faulting-getdents DIR")?;
    let dir = File::open(path).with_context(|| path.to_string())?;
    // SAFETY: the kernel checks the pointer itself and nothing is mapped there, so no memory of ours is written.
    let returned = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), BAD_POINTER, 4096usize) };
    let errno = if returned < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 };
    println!("RESULT errno={errno}");
    Ok(())
}

/// syslog(2) without a buffer; prints what it returned.
pub fn klogctl(args: &[String]) -> Result<()> {
    let [action] = exactly(args, "klogctl ACTION")?;
    let action: libc::c_int = action.parse().context("ACTION")?;
    if ![6, 7, 9, 10].contains(&action) {
        bail!("action {action} wants a buffer");
    }
    // SAFETY: these actions take no buffer.
    let returned = unsafe { libc::klogctl(action, std::ptr::null_mut(), 0) };
    println!("RESULT klogctl={returned}");
    Ok(())
}

/// Sets an auxiliary vector of one entry with prctl(2) and counts what /proc/self/auxv holds afterwards.
pub fn short_auxv(args: &[String]) -> Result<()> {
    let [] = exactly(args, "short-auxv")?;
    let one: [u64; 2] = [6, 4096]; // AT_PAGESZ
    let len = size_of_val(&one);
    // SAFETY: the kernel copies `len` bytes from `one`, which lives until after the call.
    let returned = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_AUXV, one.as_ptr(), len, 0) };
    if returned != 0 {
        return Err(std::io::Error::last_os_error()).context("prctl(PR_SET_MM, PR_SET_MM_AUXV)");
    }
    println!("RESULT auxv_bytes={}", std::fs::read("/proc/self/auxv").context("/proc/self/auxv")?.len());
    Ok(())
}

/// Keeps an epoll file open and answers what its operations do. That the kernel knows it for one is asked as well: it compares the address of
/// the operations (`is_file_epoll`, fs/eventpoll.c).
pub fn epoll_seeker(args: &[String]) -> Result<()> {
    let [dir] = exactly(args, "epoll-seeker DIR")?;
    let (ask, answer) = (Path::new(dir).join("ask"), Path::new(dir).join("answer"));
    // SAFETY: no pointers.
    let epoll = unsafe { libc::epoll_create1(0) };
    loop {
        if ask.exists() {
            // SAFETY: no pointers.
            let (at, _) = unsafe { (libc::lseek(epoll, 7, libc::SEEK_SET), libc::lseek(epoll, 0, libc::SEEK_SET)) };
            let mut event = libc::epoll_event { events: 1, u64: 0 };
            // SAFETY: the event lives until after the call.
            let known = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, epoll, &mut event) } == -1;
            std::fs::write(&answer, format!("{at} {known}\n")).context("the answer")?;
            std::fs::remove_file(&ask).context("the question")?;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
