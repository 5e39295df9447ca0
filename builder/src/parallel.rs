//! Work on several threads, where there is enough of it: starting them takes as long as comparing a small object.

use rayon::prelude::*;

/// What `f` makes of each item, in their order.
pub fn map<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
    map_if(items.len() > 1, items, f)
}

/// The same, in this thread alone unless it `pays`.
pub fn map_if<T: Sync, R: Send>(pays: bool, items: &[T], f: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
    if pays { items.par_iter().map(f).collect() } else { items.iter().map(f).collect() }
}
