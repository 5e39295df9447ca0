//! Questions to the kernel's networking over netlink, for fixes in its modules: what the answer shows as a result.
//!
//! A message is a head (`struct nlmsghdr`), a fixed part of its kind and attributes (`struct nlattr`); include/uapi/linux.

use std::ffi::CString;
use std::fs;
use std::io::Error;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};

use crate::exactly;
use crate::reach::{descriptor, done, errno};

const ROUTE: i32 = libc::NETLINK_ROUTE;
const NETFILTER: i32 = libc::NETLINK_NETFILTER;
const HEAD: usize = 16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;
const NEW: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// An answer to a dump that leaves out what a filter says (include/uapi/linux/netlink.h).
const DUMP_FILTERED: u16 = 0x20;

/// A message that came.
struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

struct Netlink(OwnedFd);

impl Netlink {
    fn open(protocol: i32) -> Result<Self> {
        // SAFETY: no pointers.
        let socket = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        let socket = descriptor(socket.into(), "socket(AF_NETLINK)")?;
        // SAFETY: all zeros are an address, but for the family.
        let mut own: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        own.nl_family = libc::AF_NETLINK as u16;
        // Who has no number gets no news of the kernel, which has the number 0 (`do_one_broadcast`, net/netlink/af_netlink.c).
        // SAFETY: the kernel reads one address, which lives until after the call.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const own).cast(), size_of_val(&own) as u32) };
        done(bound.into(), "bind")?;
        Ok(Self(socket))
    }

    /// News of a group come as well.
    fn join(&self, group: u32) -> Result<()> {
        let (level, name) = (libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP);
        // SAFETY: the kernel reads one number, which lives until after the call.
        let set = unsafe { libc::setsockopt(self.0.as_raw_fd(), level, name, (&raw const group).cast(), 4) };
        done(set.into(), "NETLINK_ADD_MEMBERSHIP").map(drop)
    }

    /// Sends a message, and reads up to the one that says it is done or has been taken; that is the last.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> Result<Vec<Message>> {
        let mut out = Vec::with_capacity(HEAD + body.len());
        out.extend(((HEAD + body.len()) as u32).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend((REQUEST | flags).to_ne_bytes());
        out.extend([0; 8]);
        out.extend(body);
        // SAFETY: the kernel reads the buffer during the call.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), out.as_ptr().cast(), out.len(), 0) };
        done(sent as libc::c_long, "send")?;
        let mut all = Vec::new();
        loop {
            for message in self.receive(0)?.unwrap_or_default() {
                let last = [libc::NLMSG_ERROR, libc::NLMSG_DONE].contains(&i32::from(message.kind));
                let status = word(&message.body, 0).unwrap_or(0) as i32;
                if last && status != 0 {
                    return Err(Error::from_raw_os_error(-status)).context(format!("message {kind}"));
                }
                all.push(message);
                if last {
                    return Ok(all);
                }
            }
        }
    }

    /// What has come; nothing where nothing has and `flags` say not to wait.
    fn receive(&self, flags: i32) -> Result<Option<Vec<Message>>> {
        let mut buffer = vec![0u8; 1 << 16];
        // SAFETY: the kernel writes into the buffer during the call, no more than its length.
        let got = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
        if got < 0 && Error::last_os_error().raw_os_error() == Some(libc::EAGAIN) {
            return Ok(None);
        }
        let mut rest = &buffer[..done(got as libc::c_long, "recv")? as usize];
        let mut all = Vec::new();
        while let Some(len) = word(rest, 0).map(|n| n as usize) {
            ensure!((HEAD..=rest.len()).contains(&len), "a message of {len} bytes in {}", rest.len());
            let half = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
            all.push(Message { kind: half(4), flags: half(6), body: rest[HEAD..len].to_vec() });
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(Some(all))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let len = 4 + content.len();
    let mut out = [(len as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
    out.extend(content);
    out.resize(len.next_multiple_of(4), 0);
    out
}

/// The content of the first attribute of the kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while attributes.len() >= 4 {
        let half = |at: usize| u16::from_ne_bytes([attributes[at], attributes[at + 1]]);
        let len = usize::from(half(0));
        let content = attributes.get(4..len)?;
        // The highest bits say how the content is to be read.
        if half(2) & 0x3fff == kind {
            return Some(content);
        }
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn index(device: &str) -> Result<i32> {
    let name = CString::new(device)?;
    // SAFETY: the name is a C string that lives until after the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    done(if index == 0 { -1 } else { index.into() }, device).map(|n| n as i32)
}

/// The quantum that a queue discipline has taken of the one asked for. `drr` has it in its classes.
pub fn quantum(args: &[String]) -> Result<()> {
    const NEWQDISC: u16 = 36;
    const NEWCLASS: u16 = 40;
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    const ROOT: u32 = 0xffff_ffff;
    const HANDLE: u32 = 1 << 16;
    let [device, discipline, quantum] = exactly(args, "quantum DEVICE drr|hhf N")?;
    let (number, in_class) = match discipline {
        "drr" => (1, true),
        "hhf" => (2, false),
        other => bail!("what is the attribute of {other}?"),
    };
    let option = attribute(number, &quantum.parse::<u32>()?.to_ne_bytes());
    let device = index(device)?;
    // `struct tcmsg`
    let about = |handle: u32, parent: u32| {
        let words = [0, device as u32, handle, parent, 0];
        words.iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<u8>>()
    };
    let named = attribute(KIND, format!("{discipline}\0").as_bytes());
    let socket = Netlink::open(ROUTE)?;
    let options = if in_class { Vec::new() } else { attribute(OPTIONS, &option) };
    socket.ask(NEWQDISC, NEW, &[about(HANDLE, ROOT), named.clone(), options].concat())?;
    let shown = (|| {
        let (kind, handle) = if in_class { (NEWCLASS, HANDLE | 1) } else { (NEWQDISC, HANDLE) };
        if in_class {
            socket.ask(NEWCLASS, NEW, &[about(handle, HANDLE), named, attribute(OPTIONS, &option)].concat())?;
        }
        // What is asked for is two further than what makes it.
        for message in socket.ask(kind + 2, DUMP, &about(0, 0))? {
            let of = (word(&message.body, 4), word(&message.body, 8));
            if message.kind == kind && of == (Some(device as u32), Some(handle)) {
                let options = find(message.body.get(20..).unwrap_or_default(), OPTIONS).context("no options")?;
                return find(options, number).and_then(|o| word(o, 0)).context("no quantum");
            }
        }
        bail!("it is not listed")
    })();
    socket.ask(NEWQDISC + 1, ACK, &about(HANDLE, ROOT))?;
    println!("RESULT quantum={}", shown?);
    Ok(())
}

/// Whether the answer to a question for connections with one mark says that others are left out.
pub fn conntrack_filtered(args: &[String]) -> Result<()> {
    const CTNETLINK: u16 = 1;
    const GET: u16 = 1;
    const MARK: u16 = 8;
    const MARK_MASK: u16 = 21;
    let [] = exactly(args, "conntrack-filtered")?;
    // `struct nfgenmsg`: family, version, resource.
    let body = [vec![0; 4], attribute(MARK, &[0, 0, 18, 52]), attribute(MARK_MASK, &[255; 4])].concat();
    let answer = Netlink::open(NETFILTER)?.ask(CTNETLINK << 8 | GET, DUMP, &body)?;
    let last = answer.last().context("no answer")?;
    println!("RESULT filtered={}", u16::from(last.flags & DUMP_FILTERED != 0));
    Ok(())
}

/// How many VLANs are said to be gone when a bridge gets another default.
pub fn bridge_vlans_gone(args: &[String]) -> Result<()> {
    const GROUP: u32 = 33;
    const GONE: u16 = 113;
    let [bridge, vlan] = exactly(args, "bridge-vlans-gone BRIDGE VLAN")?;
    let socket = Netlink::open(ROUTE)?;
    socket.join(GROUP)?;
    let file = format!("/sys/class/net/{bridge}/bridge/default_pvid");
    fs::write(&file, vlan).context(file)?;
    let mut gone = 0;
    // They are sent before the write returns.
    while let Some(news) = socket.receive(libc::MSG_DONTWAIT)? {
        gone += news.iter().filter(|m| m.kind == GONE).count();
    }
    println!("RESULT gone={gone}");
    Ok(())
}

/// The errno of sending so many bytes as they are.
pub fn raw_send(args: &[String]) -> Result<()> {
    let [device, length] = exactly(args, "raw-send DEVICE LENGTH")?;
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    let socket = descriptor(socket.into(), "socket(AF_PACKET)")?;
    // SAFETY: all zeros are an address.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index(device)?;
    // An IPv4 frame to everybody.
    let mut frame = vec![0; length.parse::<usize>()?.max(14)];
    frame[..6].fill(255);
    frame[12] = 8;
    let (fd, size) = (socket.as_raw_fd(), size_of_val(&to) as u32);
    // SAFETY: the kernel reads the frame and the address during the call.
    let sent = unsafe { libc::sendto(fd, frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), size) };
    println!("RESULT errno={}", errno(sent as libc::c_long));
    Ok(())
}

/// Turns computing of checksums by the device on or off, as `ethtool -K DEVICE tx`.
pub fn device_checksums(args: &[String]) -> Result<()> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    const STXCSUM: u32 = 0x17;
    let [device, on] = exactly(args, "device-checksums DEVICE 0|1")?;
    let mut value = [STXCSUM, on.parse()?];
    // SAFETY: all zeros are a request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(15)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("a socket")?;
    // SAFETY: SIOCETHTOOL reads the request and the value it points to; both live until after the call.
    let set = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    done(set.into(), "ETHTOOL_STXCSUM").map(drop)
}
