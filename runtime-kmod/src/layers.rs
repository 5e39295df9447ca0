//! What lies below a site: the patches this one lies on or takes the place of, and under them the kernel.
//!
//! Input: the bytes at a site and the sites of the patches below. Output: [`Beneath`]. Nothing is refused: a jump of somebody else
//! is found by the check of the sites.
//!
//! The order is in the bytes: the uppermost is the one whose jump is there now, and what that one gives back is the jump of the
//! next. It cannot change while this patch is there. A patch below is held, so it is neither reverted (LP5020) nor replaced by a
//! third (LP5019), and one whose place this one takes lies on nothing that this one does not hold as well.

use crate::site::{Route, Site};

/// A site of a patch below.
#[derive(Debug)]
pub struct Layer<'l, A> {
    /// The site.
    pub site: &'l Site<A>,
    /// Its patch goes when this one is applied.
    pub replaced: bool,
}

/// What this patch finds at a site.
#[derive(Debug)]
pub struct Beneath<'l, A> {
    /// The uppermost: whoever runs the old version of the function runs this one's.
    pub top: Option<&'l Site<A>>,
    /// The uppermost that stays. To it leads `lp_original_NAME`: it is what would run if this patch had not come and those it
    /// replaces were gone. `None`: the kernel's function.
    pub original: Option<&'l Site<A>>,
}

/// Follows the jumps from the one that is there `now` down. Each layer is met at most once, whatever damaged ones say.
pub fn beneath<'l, A: 'l, I>(addr: u64, now: &[u8], layers: impl Fn() -> I) -> Beneath<'l, A>
where
    I: Iterator<Item = Layer<'l, A>>,
{
    let mut found = Beneath { top: None, original: None };
    let mut bytes = now;
    for _ in layers() {
        let Some(layer) = layers().find(|l| l.site.addr == addr && l.site.bytes(Route::New) == bytes) else { break };
        found.top = found.top.or(Some(layer.site));
        if !layer.replaced {
            found.original = Some(layer.site);
            break;
        }
        bytes = layer.site.bytes(Route::Original);
    }
    found
}
