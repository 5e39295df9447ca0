//! Jump sites: which bytes are expected, which are written, and where an int3 hit on one is sent.

use lpbuild_abi::{FuncRecord, JumpKind, MAX_SITE};

use crate::{
    kernel::{Guard, Kernel},
    record::{Patch, jump_kind, jump_len},
    refusal::Refusal,
    sites::SiteSet,
};

/// `int3`.
pub const INT3: u8 = 0xcc;

/// Where the code at a site leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Where it led before the patch: on into the old function, or into that of a patch below.
    Original,
    /// To the dispatcher, which asks the [`crate::board::Board`].
    Dispatcher,
    /// Where it leads with the patch: to the new function; on into the old one, where a replaced patch had another and this
    /// one has none.
    New,
}

/// What a site holds on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// As many of them count as the site covers.
    pub bytes: [u8; MAX_SITE],
    /// One instruction, behind which nothing of the site is ever executed: nobody can stand in the middle of it.
    pub single: bool,
}

/// One site, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct Site<A> {
    /// Index of the function; behind those of the patch, what only a replaced patch has.
    pub func: usize,
    /// Run-time address of the first byte.
    pub addr: u64,
    /// Run-time address of the new function.
    pub target: u64,
    /// Run-time address of the dispatcher; 0: there is none.
    pub dispatcher: u64,
    /// Bytes covered; the first `len` of the arrays count.
    pub len: usize,
    /// That of [`Route::Original`].
    pub original: Code,
    /// That of [`Route::New`]: the jump and one NOP that fills the rest.
    pub jump: Code,
    /// That of [`Route::Dispatcher`].
    pub detour: Code,
    /// Writable view of the site.
    pub alias: A,
}

impl<A> Site<A> {
    fn code(&self, route: Route) -> &Code {
        match route {
            Route::Original => &self.original,
            Route::Dispatcher => &self.detour,
            Route::New => &self.jump,
        }
    }
    /// The bytes of a route.
    pub fn bytes(&self, route: Route) -> &[u8] {
        self.code(route).bytes.get(..self.len).unwrap_or(&[])
    }
    /// Where a hit on the int3 continues: where every route leads by way of the dispatcher.
    fn diverted(&self) -> u64 {
        if self.dispatcher != 0 { self.dispatcher } else { self.target }
    }
    /// Whether nobody can stand behind the first byte of a route.
    pub fn is_single(&self, route: Route) -> bool {
        self.code(route).single
    }
    /// What the site of a patch that is applied holds, if it is these bytes: the jump to the new function, or to the dispatcher, which
    /// answers that for good where a probe kept the jump from being written.
    pub fn applied(&self, now: &[u8]) -> Option<&Code> {
        let held = [Route::New, Route::Dispatcher].into_iter().filter(|r| *r == Route::New || self.dispatcher != 0);
        held.filter(|r| self.bytes(*r) == now).map(|r| self.code(r)).next()
    }
    /// Lays the site over that of a patch below, which is at the same place and holds these bytes.
    pub fn lay_over(&mut self, below: &Self, now: &[u8]) -> bool {
        let fits = below.addr == self.addr && below.len == self.len;
        let Some(code) = below.applied(now).filter(|_| fits) else { return false };
        self.original = *code;
        true
    }
    /// The site of a function that a replaced patch has and this one has not: it leads back into the old function.
    #[must_use]
    pub fn drop_to_original(mut self) -> Self {
        (self.original, self.jump) = (self.jump, self.original);
        self
    }
    /// The same site that comes back to what one below it has found.
    #[must_use]
    pub fn come_back_to(mut self, below: Option<&Self>) -> Self {
        self.original = below.map_or(self.original, |b| b.original);
        self
    }
    /// Whether `addr` is behind the first byte of the site: a task that continues there runs half an instruction
    /// once the bytes have changed.
    pub fn interior(&self, addr: u64) -> bool {
        addr > self.addr && addr < self.addr + self.len as u64
    }
}

/// The site of function `i`, whose first byte is at `addr`; `alias` is made by the caller.
pub fn site<A>(patch: &Patch<'_>, i: usize, addr: u64, alias: A) -> Result<Site<A>, Refusal> {
    let f = patch.funcs.get(i).ok_or(Refusal::BadRecord("number of functions or ranges"))?;
    let to = |target| encode(f, addr, target).ok_or(Refusal::OutOfReach { func: i });
    let none = Code { bytes: [0; MAX_SITE], single: false };
    Ok(Site {
        func: i,
        addr,
        target: f.new,
        dispatcher: f.dispatch,
        len: usize::from(f.site_size),
        original: Code { bytes: f.original, single: f.single == 1 },
        jump: to(f.new)?,
        detour: if f.dispatch == 0 { none } else { to(f.dispatch)? },
        alias,
    })
}

/// The jump, filled up to the size of the site; `None` when the target is out of reach.
fn encode(f: &FuncRecord, addr: u64, target: u64) -> Option<Code> {
    let mut out = [0u8; MAX_SITE];
    let kind = jump_kind(f)?;
    let len = jump_len(kind);
    match kind {
        JumpKind::Rel32 => {
            let next = addr.wrapping_add(len as u64);
            let rel = i32::try_from(target.wrapping_sub(next) as i64).ok()?;
            *out.first_mut()? = 0xe9;
            out.get_mut(1..5)?.copy_from_slice(&rel.to_le_bytes());
        }
        JumpKind::Abs64 => {
            out.get_mut(..2)?.copy_from_slice(&[0x48, 0xb8]);
            out.get_mut(2..10)?.copy_from_slice(&target.to_le_bytes());
            out.get_mut(10..12)?.copy_from_slice(&[0xff, 0xe0]);
        }
    }
    fill(out.get_mut(len..usize::from(f.site_size))?);
    Some(Code { bytes: out, single: kind == JumpKind::Rel32 })
}

/// One NOP of the length of `buf`, so that whoever decodes the function from its start (kprobes do) stays in step.
/// Forms of up to 9 bytes: Intel SDM, NOP, "Recommended Multi-Byte Sequence"; longer ones get more 66h prefixes.
/// It is never executed: the jump lies before it and nothing branches into a site.
fn fill(buf: &mut [u8]) {
    const NOPS: [&[u8]; 10] = [
        &[],
        &[0x90],
        &[0x66, 0x90],
        &[0x0f, 0x1f, 0x00],
        &[0x0f, 0x1f, 0x40, 0],
        &[0x0f, 0x1f, 0x44, 0, 0],
        &[0x66, 0x0f, 0x1f, 0x44, 0, 0],
        &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
        &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
    ];
    // An instruction has at most 15 bytes; a site has at most 14 left, so the loop runs once.
    for part in buf.chunks_mut(15) {
        let prefixes = part.len().saturating_sub(9);
        part.fill(0x66);
        if let (Some(nop), Some(tail)) = (NOPS.get(part.len() - prefixes), part.get_mut(prefixes..)) {
            tail.copy_from_slice(nop);
        }
    }
}

/// Whether every site holds the bytes of a route, and none is used by a kprobe.
pub fn check<'s, K: Kernel, A: 's>(
    k: &K,
    sites: impl IntoIterator<Item = &'s Site<A>>,
    route: Route,
) -> Result<(), Refusal> {
    if !k.guard(Guard::CheckSites) {
        return Ok(());
    }
    for s in sites {
        let func = s.func;
        if let Some(addr) = probe(k, s) {
            return Err(Refusal::Probed { func, addr });
        }
        let mut now = [0u8; MAX_SITE];
        let now = now.get_mut(..s.len).unwrap_or_default();
        let readable = k.read(s.addr, now);
        if readable && now == s.bytes(route) {
            continue;
        }
        return Err(match (route, jump_target(s.addr, now)) {
            (Route::Original, Some(target)) if readable => Refusal::AlreadyPatched { func, target },
            (Route::Original, _) => Refusal::Altered { func },
            (_, Some(target)) if readable => Refusal::Overlaid { func, target },
            _ => Refusal::JumpGone { func },
        });
    }
    Ok(())
}

/// Whether every site holds an int3 and, behind it, the bytes of a route, and none is used by a kprobe. A kprobe may have
/// come to an instruction inside, if that is the second and the first has one byte, as the int3 has.
pub fn check_trapped<'s, K: Kernel, A: 's>(
    k: &K,
    sites: impl IntoIterator<Item = &'s Site<A>>,
    route: Route,
) -> Result<(), Refusal> {
    for s in sites {
        let func = s.func;
        if let Some(addr) = probe(k, s) {
            return Err(Refusal::Probed { func, addr });
        }
        let mut now = [0u8; MAX_SITE];
        let now = now.get_mut(..s.len).unwrap_or_default();
        let fits = k.read(s.addr, now) && now.first() == Some(&INT3) && now.get(1..) == s.bytes(route).get(1..);
        if !fits {
            return Err(Refusal::Altered { func });
        }
    }
    Ok(())
}

/// The kprobe that uses the site, if there is one.
///
/// An optimised kprobe replaces up to five bytes behind its address (RELATIVEJUMP_SIZE in
/// arch/x86/include/asm/text-patching.h), so one that sits up to four bytes before the site reaches into it.
fn probe<K: Kernel, A>(k: &K, s: &Site<A>) -> Option<u64> {
    (s.addr.wrapping_sub(4)..s.addr + s.len as u64).find(|&a| k.probe_at(a))
}

/// Where the code at `addr` jumps, when it begins with one of the two forms of jump.
fn jump_target(addr: u64, code: &[u8]) -> Option<u64> {
    match code {
        [0xe9, a, b, c, d, ..] => {
            let rel = i64::from(i32::from_le_bytes([*a, *b, *c, *d]));
            Some(addr.wrapping_add(5).wrapping_add_signed(rel))
        }
        [0x48, 0xb8, imm @ .., 0xff, 0xe0] => imm.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)),
        _ => None,
    }
}

/// What becomes of a CPU that hit an int3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diverted {
    /// Not one of the sites.
    NotOurs,
    /// It continues there.
    To(u64),
    /// The site was finished or given up meanwhile: it executes the site again.
    Again(u64),
}

/// Decides about an int3; `ip` is the address behind the one-byte instruction. Called in any context, NMIs included.
pub fn divert<K: Kernel, A>(k: &K, sites: SiteSet<'_, A>, armed: bool, ip: u64) -> Diverted {
    let hit = ip.wrapping_sub(1);
    let Some((s, going)) = sites.at(hit) else { return Diverted::NotOurs };
    if armed || going {
        return Diverted::To(s.diverted());
    }
    // Not armed: a late hit on an int3 of ours that is gone by now, or someone else's int3 (a kprobe), still there.
    let mut now = [0u8; 1];
    if k.read(hit, &mut now) && now != [INT3] { Diverted::Again(hit) } else { Diverted::NotOurs }
}
