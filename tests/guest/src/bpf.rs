//! A BPF program on a kernel function, by raw bpf(2): an initramfs has no tool for it.

use std::fs;
use std::io::Error;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::exactly;

// include/uapi/linux/bpf.h
const MAP_CREATE: i64 = 0;
const MAP_LOOKUP: i64 = 1;
const PROG_LOAD: i64 = 5;
const RAW_TRACEPOINT_OPEN: i64 = 17;
const ARRAY: u32 = 2;
const TRACING: u32 = 26;
const FENTRY: u32 = 24;
const FEXIT: u32 = 25;
const FUNC: u32 = 12;

/// Counts how often the function was entered, or left, and keeps the number in FILE, until it is ended.
pub fn bpf_count(args: &[String]) -> Result<()> {
    let [function, place, file] = exactly(args, "bpf-count FUNCTION entry|exit FILE")?;
    let attach = match place {
        "entry" => FENTRY,
        "exit" => FEXIT,
        other => bail!("{other:?} is neither entry nor exit"),
    };
    let btf = fs::read("/sys/kernel/btf/vmlinux").context("/sys/kernel/btf/vmlinux")?;
    let id = function_id(&btf, function)?;
    let map =
        bpf(MAP_CREATE, &Attributes::new().u32(0, ARRAY).u32(4, 4).u32(8, 8).u32(12, 1)).context("create a map")?;
    let insn = |code: u8, registers: u8, imm: u32| {
        let [a, b, c, d] = imm.to_le_bytes();
        [code, registers, 0, 0, a, b, c, d]
    };
    let program = [
        // r1 = the map's value; r2 = 1; *r1 += r2; return 0
        insn(0x18, 0x21, map),
        insn(0, 0, 0),
        insn(0xb7, 0x02, 1),
        insn(0xdb, 0x21, 0),
        insn(0xb7, 0x00, 0),
        insn(0x95, 0, 0),
    ];
    let mut log = vec![0u8; 16384];
    let load = Attributes::new()
        .u32(0, TRACING)
        .u32(4, program.len() as u32)
        .pointer(8, program.as_ptr().cast())
        .pointer(16, c"GPL".as_ptr().cast())
        .u32(24, 1)
        .u32(28, log.len() as u32)
        .pointer(32, log.as_mut_ptr())
        .u32(68, attach)
        .u32(108, id);
    let program = bpf(PROG_LOAD, &load).with_context(|| format!("load: {}", String::from_utf8_lossy(&log)))?;
    let _link = bpf(RAW_TRACEPOINT_OPEN, &Attributes::new().u32(8, program)).context("attach")?;
    loop {
        let (key, mut count) = (0u32, 0u64);
        let look = Attributes::new()
            .u32(0, map)
            .pointer(8, (&raw const key).cast())
            .pointer(16, (&raw mut count).cast_const().cast());
        bpf(MAP_LOOKUP, &look).context("look")?;
        // Whoever reads the file sees the number whole.
        let fresh = format!("{file}.new");
        fs::write(&fresh, format!("{count}\n"))
            .and_then(|()| fs::rename(&fresh, file))
            .with_context(|| fresh.clone())?;
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `union bpf_attr`; fields by their offsets.
struct Attributes([u8; 128]);

impl Attributes {
    fn new() -> Self {
        Self([0; 128])
    }
    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }
    fn pointer(mut self, at: usize, value: *const u8) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.expose_provenance().to_le_bytes());
        self
    }
}

fn bpf(command: i64, attributes: &Attributes) -> Result<u32> {
    // SAFETY: what the attributes point to lives in the caller until the call returns, and is as long as the command says.
    let got = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.0.as_ptr(), attributes.0.len()) };
    u32::try_from(got).map_err(|_| Error::last_os_error().into())
}

/// The number of the function's type (Documentation/bpf/btf.rst).
fn function_id(btf: &[u8], name: &str) -> Result<u32> {
    let u32_at = |at: usize| {
        let bytes = btf.get(at..at + 4).context("the types end early")?;
        Ok::<_, anyhow::Error>(u32::from_le_bytes(bytes.try_into()?))
    };
    let header = u32_at(4)? as usize;
    let (types, length, strings) = (header + u32_at(8)? as usize, u32_at(12)? as usize, header + u32_at(16)? as usize);
    let (mut at, mut id) = (types, 1);
    while at < types + length {
        let (text, info) = (strings + u32_at(at)? as usize, u32_at(at + 4)?);
        let (kind, n) = (info >> 24 & 31, (info & 0xffff) as usize);
        if kind == FUNC
            && btf.get(text..).is_some_and(|t| t.strip_prefix(name.as_bytes()).is_some_and(|r| r.first() == Some(&0)))
        {
            return Ok(id);
        }
        at += 12
            + match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => 12 * n,
                6 | 13 => 8 * n,
                _ => 0,
            };
        id += 1;
    }
    bail!("no function {name} among the kernel's types")
}
