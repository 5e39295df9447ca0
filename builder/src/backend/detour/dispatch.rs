//! Behind the carried code, for each replaced function: its beginning as it was, and the dispatcher that chooses between
//! the two versions (see [`abi::FuncRecord`]).
//!
//! ```text
//! lp_original_NAME          endbr64; the instructions the site covers; jmp to the first one behind the site
//! lpbuild_dispatch_NAME     endbr64; call lpbuild_chooses_new; jne NEW; jmp lp_original_NAME
//! ```
//!
//! Both begin with ENDBR: the address of the first one can be taken, and an abs64 jump to the second one is indirect. They
//! have no ORC entries: a stack that leads through them is not reliable.

use std::collections::HashMap;

use lpbuild_abi as abi;

use super::Lowering;
use super::fields::loose;
use super::records::running;
use crate::bind::Bound;
use crate::codes;
use crate::correlate::NewAtom;
use crate::emit::{Access, Base, Late, Layout, Spot, Writer};
use crate::error::{Place, Problem, Result};
use crate::holder::HolderName;
use crate::isa::{ENDBR64, moved, reloc};
use crate::kernel::module::is_in_area;
use crate::plan::manifest::Mode;
use crate::plan::{Analysis, JumpSite, PairId, Role};

/// Where the two pieces of a function begin.
#[derive(Clone, Copy, Debug)]
pub struct Entrances {
    /// The original's beginning.
    pub resume: Spot,
    /// The dispatcher.
    pub dispatch: Spot,
}

/// Padding as before any function that is called (call depth tracking writes there).
const PADDING: [u8; 16] = [0x90; 16];

/// Writes both pieces of every replaced function of a holder whose beginning can be executed elsewhere.
pub fn place(
    w: &mut Writer,
    low: &Lowering<'_>,
    layout: &Layout,
    holder: &HolderName,
) -> Result<HashMap<(PairId, NewAtom), Entrances>> {
    let (analysis, Some(bound)) = (low.analysis, low.bound) else { return Ok(HashMap::new()) };
    let mut entrances = HashMap::new();
    for (index, site) in &analysis.detour.sites {
        let item = &analysis.set.items[*index];
        let key = (item.pair, item.atom);
        if analysis.pairs[item.pair.0 as usize].holder != *holder {
            continue;
        }
        let Some(new) = layout.items.get(&key).copied() else { continue };
        if let Some(resume) = place_original(w, analysis, bound, *index, site)? {
            let name = &analysis.pairs[item.pair.0 as usize].new.atom(item.atom.0).name;
            let dispatch = place_dispatcher(w, name, new, resume);
            entrances.insert(key, Entrances { resume, dispatch });
        }
    }
    // One byte behind, so that the end of the text is not the address of anything else.
    let text = w.section(abi::SEC_TEXT, Access::Code);
    w.append_code(text, &[0xcc], 1);
    Ok(entrances)
}

fn place_original(
    w: &mut Writer,
    analysis: &Analysis,
    bound: &Bound<'_>,
    index: usize,
    site: &JumpSite,
) -> Result<Option<Spot>> {
    let item = &analysis.set.items[index];
    let Role::Replaces(old) = item.role else { return Ok(None) };
    let pair = &analysis.pairs[item.pair.0 as usize];
    let atom = pair.old.atom(old.0);
    let address = bound.old_address(item.pair, old).unwrap_or(0);
    let at = address.wrapping_add(site.offset.into());
    let original = running(bound, address, site);
    let code = match moved::encode(original, at) {
        Ok(code) => code,
        // Known before, except where the image has other instructions than the object.
        Err(_) if analysis.detour.mode == Mode::StopMachine => return Ok(None),
        Err(fixed) => {
            let place = Place::symbol(&pair.name, &atom.name).at(u64::from(site.offset) + fixed.at as u64);
            return Err(Problem::new(codes::LP2102, place, fixed.why).into());
        }
    };
    let mut bytes = ENDBR64.to_vec();
    let from = bytes.len();
    bytes.extend_from_slice(&code.bytes);
    let loose = loose(bound, pair, old, address, site, original);
    let moving: Vec<_> = loose
        .iter()
        .filter(|field| !field.is_relative())
        .filter_map(|field| Some((from + code.at(field.at)?, field)))
        .collect();
    for (to, field) in &moving {
        bytes[*to..to + field.width].fill(0);
    }
    bytes.extend_from_slice(&[0xe9, 0, 0, 0, 0]);
    let text = w.section(abi::SEC_TEXT, Access::Code);
    w.append_code(text, &PADDING, 16);
    let start = w.append_code(text, &bytes, 16);
    let mut refer = Refer { w, bound, pair: item.pair, text, late: false };
    for field in &code.fields {
        // What is not among them lies in the section of the function itself.
        let relative = loose.iter().filter(|l| l.is_relative());
        let near = relative.clone().find(|l| l.value.wrapping_add_signed(field.bias) == field.target);
        let near = near.map_or(if bound.module_at(address).is_some() { address } else { field.target }, |l| l.symbol);
        refer.to(start + (from + field.at) as u64, field.kind, near, field.target, field.bias);
    }
    for (to, field) in &moving {
        refer.to(start + *to as u64, field.kind, field.symbol, field.value, 0);
    }
    refer.to(start + bytes.len() as u64 - 4, reloc::PLT32, address, at.wrapping_add(site.size.into()), 4);
    if refer.late {
        w.no_kprobes(text, start);
    }
    let name = format!("{}{}", abi::ORIGINAL_PREFIX, atom.name);
    w.define(&name, text, start, bytes.len() as u64, true, false);
    Ok(Some(Spot { section: text, offset: start }))
}

/// Fields of a copy.
struct Refer<'w, 'b> {
    w: &'w mut Writer,
    bound: &'b Bound<'b>,
    pair: PairId,
    text: object::write::SectionId,
    late: bool,
}

impl Refer<'_, '_> {
    /// One that refers to `target`; `near` is in the section that is meant.
    fn to(&mut self, offset: u64, kind: u32, near: u64, target: u64, bias: i64) {
        let holder = &self.bound.holder;
        if let (true, Some(kind)) = (is_in_area(near), reloc::late_kind(kind)) {
            let addend = target.wrapping_sub(near).cast_signed().wrapping_sub(bias);
            self.w.late(Late { pair: self.pair, section: self.text, offset, kind, to: near, addend });
            self.late = true;
        } else {
            let anchor = Base::Extern(holder.anchor.symbol.into());
            self.w.relocate(self.text, offset, kind, &anchor, holder.anchored(target).wrapping_sub(bias));
        }
    }
}

fn place_dispatcher(w: &mut Writer, name: &str, new: Spot, resume: Spot) -> Spot {
    let text = w.section(abi::SEC_TEXT, Access::Code);
    w.append_code(text, &PADDING, 16);
    let start = w.len(text);
    // Both lie in this section, so the distances do not depend on where it is loaded.
    let distance = |to: Spot, next: u64| (to.offset as i64 - (start + next) as i64) as i32;
    let mut bytes = ENDBR64.to_vec();
    bytes.extend_from_slice(&[0xe8, 0, 0, 0, 0, 0x0f, 0x85]);
    bytes.extend_from_slice(&distance(new, 15).to_le_bytes());
    bytes.push(0xe9);
    bytes.extend_from_slice(&distance(resume, abi::DISPATCH_LEN as u64).to_le_bytes());
    debug_assert_eq!(bytes.len(), abi::DISPATCH_LEN, "as the records promise");
    let start = w.append_code(text, &bytes, 16);
    w.relocate(text, start + 5, reloc::PLT32, &Base::Extern(abi::SYM_CHOOSES_NEW.into()), -4);
    w.define(&format!("lpbuild_dispatch_{name}"), text, start, bytes.len() as u64, true, false);
    Spot { section: text, offset: start }
}
