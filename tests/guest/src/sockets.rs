//! Sockets of families that no shell can open: those of a module, and those by which the kernel's own ciphers are used.

use std::fs::File;
use std::io::{Error, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use crate::exactly;

fn descriptor(returned: i32, call: &str) -> Result<OwnedFd> {
    if returned < 0 {
        return Err(Error::last_os_error()).context(call.to_string());
    }
    // SAFETY: the kernel has just made this descriptor for us; nothing else closes it.
    Ok(unsafe { OwnedFd::from_raw_fd(returned) })
}

fn open(family: i32, kind: i32) -> Result<OwnedFd> {
    // SAFETY: no pointers.
    descriptor(unsafe { libc::socket(family, kind, 0) }, "socket")
}

/// A socket that is opened and closed.
pub fn socket(args: &[String]) -> Result<()> {
    let [family, kind] = exactly(args, "socket FAMILY TYPE")?;
    drop(open(family.parse()?, kind.parse()?)?);
    Ok(())
}

/// An operation of an algorithm of the kernel.
fn algorithm(kind: &str, name: &str, key: &[u8]) -> Result<OwnedFd> {
    let made = open(libc::AF_ALG, libc::SOCK_SEQPACKET)?;
    // SAFETY: all zeros are an address.
    let mut address: libc::sockaddr_alg = unsafe { std::mem::zeroed() };
    address.salg_family = libc::AF_ALG as u16;
    address.salg_type.iter_mut().zip(kind.bytes()).for_each(|(to, from)| *to = from);
    address.salg_name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    // SAFETY: the kernel reads one address, which lives until after the call.
    let bound = unsafe { libc::bind(made.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
    if bound < 0 {
        return Err(Error::last_os_error()).with_context(|| format!("no {kind} {name}"));
    }
    if !key.is_empty() {
        // SAFETY: the kernel reads the key, which lives until after the call.
        let set = unsafe {
            libc::setsockopt(made.as_raw_fd(), libc::SOL_ALG, libc::ALG_SET_KEY, key.as_ptr().cast(), key.len() as u32)
        };
        if set < 0 {
            return Err(Error::last_os_error()).context("the key");
        }
    }
    // SAFETY: no address is asked for.
    descriptor(unsafe { libc::accept(made.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) }, "accept")
}

fn print(what: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    println!("RESULT {what}={hex}");
}

/// What the kernel's hash makes of 1024 bytes.
pub fn kernel_hash(args: &[String]) -> Result<()> {
    let [name] = exactly(args, "kernel-hash NAME")?;
    let mut operation = File::from(algorithm("hash", name, &[])?);
    operation.write_all(&[0x5a; 1024]).context("the text")?;
    let mut digest = [0; 64];
    let n = operation.read(&mut digest).context("the digest")?;
    print("digest", &digest[..n]);
    Ok(())
}

/// Bytes that no page ends in the middle of: the kernel takes them in one piece.
#[repr(align(64))]
struct Piece([u8; 64]);

/// What the kernel's cipher makes of 64 bytes, with a key and a beginning of 16 bytes.
pub fn kernel_cipher(args: &[String]) -> Result<()> {
    let [name] = exactly(args, "kernel-cipher NAME")?;
    let operation = algorithm("skcipher", name, &[7; 16])?;
    let mut text = Piece([0x5a; 64]);
    let mut part = libc::iovec { iov_base: text.0.as_mut_ptr().cast(), iov_len: text.0.len() };
    let mut control = [0_u64; 12];
    // SAFETY: all zeros are a message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // To encrypt, and the beginning: its length, and its bytes.
    let op = libc::ALG_OP_ENCRYPT as u32;
    let iv: Vec<u8> = 16_u32.to_ne_bytes().into_iter().chain([3; 16]).collect();
    // SAFETY: both headers and their bytes fit into `control`, which is aligned for them.
    unsafe {
        message.msg_controllen = (libc::CMSG_SPACE(4) + libc::CMSG_SPACE(iv.len() as u32)) as usize;
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        for (kind, bytes) in [(libc::ALG_SET_OP, &op.to_ne_bytes()[..]), (libc::ALG_SET_IV, &iv)] {
            (*header).cmsg_level = libc::SOL_ALG;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = libc::CMSG_LEN(bytes.len() as u32) as usize;
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), libc::CMSG_DATA(header), bytes.len());
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    // SAFETY: the message and what it refers to live until after the call.
    if unsafe { libc::sendmsg(operation.as_raw_fd(), &raw const message, 0) } < 0 {
        return Err(Error::last_os_error()).context("the text");
    }
    let mut out = Piece([0; 64]);
    let n = File::from(operation).read(&mut out.0).context("what comes of it")?;
    print("cipher", &out.0[..n]);
    Ok(())
}
