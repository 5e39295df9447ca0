//! PID 1 of a test VM, and the helpers a case calls, in one static binary.
//!
//! Started as PID 1 it runs `/case.sh` and prints one verdict line; under any other name it is the helper of that name
//! (the first argument counts when the binary is called `guest` or `init`). A helper exits 0 when it did what it says,
//! 1 when not, and prints `RESULT key=value` lines.

mod bpf;
mod busy;
mod consistent;
mod init;
mod memory;
mod netlink;
mod probe;
mod reach;
mod sandbox;
mod sockets;
mod storms;
mod syscalls;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

type Helper = fn(&[String]) -> Result<()>;

/// Name, function, arguments and what it does.
const HELPERS: &[(&str, Helper, &str)] = &[
    ("address", memory::address, "SYMBOL: where it is in the kernel"),
    (
        "arp-long-device",
        reach::arp_long_device,
        "NAME: SIOCGARP with a device name of 16 characters and no end; the errno as a result",
    ),
    (
        "bpf-count",
        bpf::bpf_count,
        "FUNCTION entry|exit FILE: a BPF program that counts the function's calls; the number in the file, until ended",
    ),
    (
        "bridge-vlans-gone",
        netlink::bridge_vlans_gone,
        "BRIDGE VLAN: VLANs said to be gone when this is the default, as a result",
    ),
    (
        "conntrack-filtered",
        netlink::conntrack_filtered,
        "whether an answer says that it is not all there is, as a result",
    ),
    (
        "consistent",
        consistent::consistent,
        "FILE SECONDS|@FILE OLD=NEW..: reads on every CPU that hold each piece's OLD, each piece's NEW, or a mixture, as results",
    ),
    ("cpustorm", storms::cpustorm, "SECONDS|forever: CPU 1 goes and comes back"),
    (
        "cycle",
        busy::cycle,
        "N LPBUILD KO NAME [OPTION..]: `LPBUILD load KO` and `LPBUILD unload NAME` with the options, N times",
    ),
    ("device-checksums", netlink::device_checksums, "DEVICE 0|1: whether the device computes checksums"),
    (
        "elapsed",
        probe::elapsed,
        "FILE PART STATE TEXT COMMAND..: milliseconds until a read of the file has the part, and until the command has ended and STATE has the text",
    ),
    (
        "epoll-seeker",
        syscalls::epoll_seeker,
        "DIR: whenever DIR/ask is there, what lseek(2) to 7 gives of an epoll file that was opened at first, to DIR/answer",
    ),
    ("exitstorm", storms::exitstorm, "SECONDS|forever: processes with threads end as a whole"),
    (
        "fanotify-uncounted",
        reach::fanotify_uncounted,
        "FILE: bytes of a pending event that FIONREAD does not count, as a result",
    ),
    ("faulting-getdents", syscalls::faulting_getdents, "DIR: with a bad user pointer; the errno as a result"),
    ("faulting-usercopy", probe::faulting_usercopy, "FILE read|write: with a bad user pointer; the errno as a result"),
    ("forkstorm", storms::forkstorm, "SECONDS|forever: one process after the other, that ends at once"),
    ("hammer", busy::hammer, "FILE SECONDS|forever [TEXT..]: open, read, close on every CPU; each read holds one TEXT"),
    ("hot", storms::hot, "N FILE: N processes read without a pause, until they are ended"),
    ("inotify-twice", reach::inotify_twice, "FILE: a watch, and again with another mask"),
    (
        "io-uring-rings",
        reach::io_uring_rings,
        "N: one ring each in N threads; growth of kmalloc-8 in objects as a result",
    ),
    ("kernel-cipher", sockets::kernel_cipher, "NAME: what the kernel's cipher makes of 64 bytes, as a result"),
    ("kernel-hash", sockets::kernel_hash, "NAME: what the kernel's hash makes of 1024 bytes, as a result"),
    ("klogctl", syscalls::klogctl, "6|7|9|10: syslog(2) without a buffer, what it returned as a result"),
    ("kmem", memory::kmem, "SYMBOL[+OFFSET]|0xADDRESS LENGTH: kernel memory as hex"),
    ("ktext", memory::ktext, "save|diff FILE: the kernel's text, and where it differs from the saved one"),
    (
        "landlock-whiteout",
        reach::landlock_whiteout,
        "DIR: whiteout where Landlock allows only regular files; the errno as a result",
    ),
    ("lost-key", reach::lost_key, "a key that is collected when the process ends"),
    ("modstorm", storms::modstorm, "KO NAME SECONDS|forever: a module is loaded and removed"),
    (
        "module-cost",
        probe::module_cost,
        "KO NAME N: nanoseconds of finit_module(2), the least of N loads of the module, which is removed again",
    ),
    ("odd-clone", storms::odd_clone, "clone(2) with the exit signal 63; the errno as a result"),
    ("packet-ring", reach::packet_ring, "a packet socket with a TPACKET_V3 ring, and a datagram"),
    ("pipe-sleeper", busy::pipe_sleeper, "FIFO: sleeps in read(2) of the FIFO until it is fed"),
    ("quantum", netlink::quantum, "DEVICE drr|hhf N: the quantum that is taken when N is asked for, as a result"),
    ("raw-send", netlink::raw_send, "DEVICE LENGTH: a frame of this length; the errno as a result"),
    ("read-cost", probe::read_cost, "FILE N: nanoseconds per pread(2), over N calls"),
    ("sandboxed", sandbox::sandboxed, "SECONDS: a seccomp sandbox asleep in nanosleep(2); how it ended as a result"),
    ("short-auxv", syscalls::short_auxv, "an auxiliary vector of one entry; the length of /proc/self/auxv as a result"),
    (
        "sleepers",
        storms::sleepers,
        "N [FIFO]: N threads asleep in read(2) of the FIFO, or in pause(2), until they are ended",
    ),
    ("slabsum", probe::slabsum, "[PREFIX]: slab and free memory in KiB"),
    ("socket", sockets::socket, "FAMILY TYPE: a socket that is opened and closed"),
    (
        "tracestorm",
        storms::tracestorm,
        "FUNCTION SECONDS|forever: function tracer, graph tracer, kprobe and kretprobe come and go",
    ),
    ("udp-disconnect", reach::udp_disconnect, "a UDP socket, connected and disconnected"),
    ("vforker", storms::vforker, "a process that waits in vfork(2), which no fake signal wakes, until it is ended"),
    ("wait-for", probe::wait_for, "FILE TEXT SECONDS: until the file contains the text"),
];

fn main() -> ExitCode {
    if rustix::process::getpid().is_init() {
        init::main();
    }
    let mut args: Vec<String> = std::env::args().collect();
    let name = |a: &String| Path::new(a).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if args.first().is_none_or(|a| ["guest", "init"].contains(&name(a).as_str())) && !args.is_empty() {
        args.remove(0);
    }
    let called = args.first().map(name).unwrap_or_default();
    match run(&called, args.get(1..).unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{called}: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, args: &[String]) -> Result<()> {
    if let Some((_, helper, _)) = HELPERS.iter().find(|(n, ..)| *n == name) {
        return helper(args);
    }
    let table: String = HELPERS.iter().map(|(n, _, help)| format!("\n  {n} {help}")).collect();
    bail!("no such helper; there are:{table}")
}

/// The arguments as exactly `N` strings, or the usage.
fn exactly<'a, const N: usize>(args: &'a [String], usage: &str) -> Result<[&'a str; N]> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.try_into() {
        Ok(array) => Ok(array),
        Err(_) => bail!("usage: {usage}"),
    }
}
