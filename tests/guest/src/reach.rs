//! Calls that reach one part of the kernel, for fixes there: what the kernel answers as a result, or only that it did.
//!
//! Every helper needs nothing but what its usage names and leaves nothing behind but in the folder it was given.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Error, Read};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::exactly;

/// What a system call returned, or its errno in words.
pub(crate) fn done(returned: libc::c_long, call: &str) -> Result<libc::c_long> {
    if returned < 0 { Err(Error::last_os_error()).context(call.to_string()) } else { Ok(returned) }
}

/// A descriptor that a system call returned.
pub(crate) fn descriptor(returned: libc::c_long, call: &str) -> Result<OwnedFd> {
    let fd = done(returned, call)?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else closes it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The errno of a call that failed, 0 of one that did not.
pub(crate) fn errno(returned: libc::c_long) -> i32 {
    if returned < 0 { Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

fn path(text: &str) -> Result<CString> {
    CString::new(text).with_context(|| format!("{text:?} holds a zero byte"))
}

/// A watch of a file, and the same one again with another mask.
pub fn inotify_twice(args: &[String]) -> Result<()> {
    let [file] = exactly(args, "inotify-twice FILE")?;
    let name = path(file)?;
    // SAFETY: no pointers.
    let inotify = descriptor(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) }.into(), "inotify_init1")?;
    for mask in [libc::IN_MODIFY, libc::IN_MODIFY | libc::IN_OPEN] {
        // SAFETY: the name is a C string that lives until after the call.
        let watch = unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), name.as_ptr(), mask) };
        done(watch.into(), "inotify_add_watch")?;
    }
    fs::read(file).with_context(|| file.to_string())?;
    let mut events = [0; 64];
    let n = File::from(inotify).read(&mut events).context("read the events")?;
    println!("RESULT events_bytes={n}");
    Ok(())
}

/// How many bytes of a pending fanotify event FIONREAD does not count.
pub fn fanotify_uncounted(args: &[String]) -> Result<()> {
    let [file] = exactly(args, "fanotify-uncounted FILE")?;
    let name = path(file)?;
    // SAFETY: no pointers.
    let made = unsafe { libc::fanotify_init(libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_FID, libc::O_RDONLY as u32) };
    let group = descriptor(made.into(), "fanotify_init")?;
    // SAFETY: the name is a C string that lives until after the call.
    let marked = unsafe {
        libc::fanotify_mark(group.as_raw_fd(), libc::FAN_MARK_ADD, libc::FAN_OPEN, libc::AT_FDCWD, name.as_ptr())
    };
    done(marked.into(), "fanotify_mark")?;
    fs::read(file).with_context(|| file.to_string())?;
    let mut counted: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which lives until after the call.
    done(unsafe { libc::ioctl(group.as_raw_fd(), libc::FIONREAD, &raw mut counted) }.into(), "FIONREAD")?;
    let mut events = [0; 4096];
    let n = File::from(group).read(&mut events).context("read the events")?;
    println!("RESULT uncounted={}", n as i64 - i64::from(counted));
    Ok(())
}

/// A connected UDP socket that is disconnected again.
pub fn udp_disconnect(args: &[String]) -> Result<()> {
    let [] = exactly(args, "udp-disconnect")?;
    let socket = UdpSocket::bind("127.0.0.1:0").context("bind to 127.0.0.1")?;
    socket.connect("127.0.0.1:9").context("connect to 127.0.0.1")?;
    // SAFETY: all zeros are a socket address: of the family AF_UNSPEC.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads one address, which lives until after the call.
    let returned = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, size_of_val(&nowhere) as u32) };
    done(returned.into(), "connect to nowhere")?;
    println!("RESULT connected={}", socket.peer_addr().is_ok());
    Ok(())
}

/// The errno of asking for an ARP entry of a device whose name fills the whole field, without an end.
pub fn arp_long_device(args: &[String]) -> Result<()> {
    let [device] = exactly(args, "arp-long-device NAME")?;
    // SAFETY: all zeros are a request.
    let mut request: libc::arpreq = unsafe { std::mem::zeroed() };
    request.arp_pa.sa_family = libc::AF_INET as u16;
    request.arp_pa.sa_data[2] = 127;
    request.arp_pa.sa_data[5] = 1;
    if device.len() != request.arp_dev.len() {
        bail!("NAME must have {} characters", request.arp_dev.len());
    }
    for (to, from) in request.arp_dev.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    let socket = UdpSocket::bind("0.0.0.0:0").context("a socket")?;
    // SAFETY: SIOCGARP reads and writes one request, which lives until after the call.
    let returned = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGARP, &raw mut request) };
    println!("RESULT errno={}", errno(returned.into()));
    Ok(())
}

/// A packet socket with a receive ring of the third version, and a datagram for it.
pub fn packet_ring(args: &[String]) -> Result<()> {
    let [] = exactly(args, "packet-ring")?;
    let all = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: no pointers.
    let socket = descriptor(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, all) }.into(), "packet socket")?;
    let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
    let ring = libc::tpacket_req3 {
        tp_block_size: 1 << 16,
        tp_block_nr: 2,
        tp_frame_size: 1 << 11,
        tp_frame_nr: 64,
        tp_retire_blk_tov: 0,
        tp_sizeof_priv: 0,
        tp_feature_req_word: 0,
    };
    let options: [(libc::c_int, *const libc::c_void, usize); 2] = [
        (libc::PACKET_VERSION, (&raw const version).cast(), size_of_val(&version)),
        (libc::PACKET_RX_RING, (&raw const ring).cast(), size_of_val(&ring)),
    ];
    for (option, value, length) in options {
        // SAFETY: the kernel reads `length` bytes of `version` or `ring`, which live until after the call.
        let set =
            unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, value, length as libc::socklen_t) };
        done(set.into(), "setsockopt")?;
    }
    let sender = UdpSocket::bind("127.0.0.1:0").context("bind to 127.0.0.1")?;
    sender.send_to(b"seen by the ring", "127.0.0.1:9").context("send to 127.0.0.1")?;
    Ok(())
}

/// One ring each in threads of their own, one after the other, and by how much the smallest slab has grown.
pub fn io_uring_rings(args: &[String]) -> Result<()> {
    let [n] = exactly(args, "io-uring-rings N")?;
    let n: usize = n.parse().context("N")?;
    let before = smallest_slab()?;
    for _ in 0..n {
        let one = || -> Result<OwnedFd> {
            // struct io_uring_params: all zeros ask for the defaults.
            let mut params = [0u32; 30];
            // SAFETY: the kernel reads and writes 120 bytes of `params`, which live until after the call.
            let made = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
            descriptor(made, "io_uring_setup")
        };
        let made = std::thread::scope(|s| s.spawn(|| one().map(drop)).join());
        made.unwrap_or_else(|_| bail!("a thread panicked"))?;
    }
    println!("RESULT slab_growth={}", smallest_slab()? - before);
    Ok(())
}

/// Objects in use in kmalloc-8.
fn smallest_slab() -> Result<i64> {
    let info = fs::read_to_string("/proc/slabinfo").context("/proc/slabinfo")?;
    let active = info.lines().find_map(|l| l.strip_prefix("kmalloc-8 ")?.split_ascii_whitespace().next()?.parse().ok());
    active.context("no kmalloc-8 in /proc/slabinfo")
}

/// A key that goes with this process.
pub fn lost_key(args: &[String]) -> Result<()> {
    let [] = exactly(args, "lost-key")?;
    // SAFETY: two C strings and a payload of one byte, all of which live for ever.
    let key = unsafe {
        let (kind, name) = (c"user".as_ptr(), c"lpbuild".as_ptr());
        libc::syscall(libc::SYS_add_key, kind, name, b"x".as_ptr(), 1usize, libc::KEY_SPEC_PROCESS_KEYRING)
    };
    println!("RESULT key={}", done(key, "add_key")?);
    Ok(())
}

/// The errno of making a whiteout (character device 0:0) in a folder in which Landlock allows only regular files.
pub fn landlock_whiteout(args: &[String]) -> Result<()> {
    let [dir] = exactly(args, "landlock-whiteout DIR")?;
    // LANDLOCK_ACCESS_FS_MAKE_CHAR and LANDLOCK_ACCESS_FS_MAKE_REG; LANDLOCK_RULE_PATH_BENEATH.
    let (make_char, make_reg, path_beneath) = (1u64 << 6, 1u64 << 8, 1);
    let handled = make_char | make_reg;
    // SAFETY: the kernel reads 8 bytes of `handled`, which live until after the call.
    let made =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of_val(&handled), 0) };
    let rules = descriptor(made, "landlock_create_ruleset")?;
    let folder = File::open(dir).with_context(|| dir.to_string())?;
    // struct landlock_path_beneath_attr, packed: allowed access and the folder.
    let mut rule = [0; 12];
    rule[..8].copy_from_slice(&make_reg.to_ne_bytes());
    rule[8..].copy_from_slice(&folder.as_raw_fd().to_ne_bytes());
    // SAFETY: the kernel reads the 12 bytes of `rule`, which live until after the call.
    let added =
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), path_beneath, rule.as_ptr(), 0) };
    done(added, "landlock_add_rule")?;
    // SAFETY: no pointers.
    done(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into(), "PR_SET_NO_NEW_PRIVS")?;
    // SAFETY: no pointers.
    done(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) }, "landlock_restrict_self")?;
    let name = Path::new(dir).join("whiteout");
    let regular = Path::new(dir).join("regular");
    File::create(&regular).with_context(|| regular.display().to_string())?;
    let c_name = path(&name.to_string_lossy())?;
    // SAFETY: the name is a C string that lives until after the call.
    let made = unsafe { libc::mknod(c_name.as_ptr(), libc::S_IFCHR | 0o600, 0) };
    println!("RESULT errno={}", errno(made.into()));
    for file in [name, regular] {
        if let Err(e) = fs::remove_file(&file)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(e).with_context(|| file.display().to_string());
        }
    }
    Ok(())
}
