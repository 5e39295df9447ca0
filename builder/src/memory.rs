//! The allocator of the program.
//!
//! A comparison makes some hundred thousand small things in one thread and then ends. Most of what that costs with an allocator
//! for all purposes is its book-keeping and the kernel's: a page fault for every page. So what the main thread asks for lies in
//! one arena: blocks are cut off its end one behind the other, freed ones are kept by size for the next of that size, and pages are
//! asked for many at a time. There are no locks, because no other thread gets at it: these use the system's allocator, as
//! everything does when the arena is full or a block is large, so nothing here bounds what a comparison of whole images may use.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::ptr::{null_mut, with_exposed_provenance_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Advice, MmapMut, MmapOptions};

/// Bytes of the arena, which are only addresses until they are used.
const SIZE: usize = 256 << 20;
/// Bytes that are made ready at a time. Not huge pages: where memory is in pieces, the kernel takes milliseconds to make one.
const AHEAD: usize = 128 << 10;
/// The largest block that lies in it.
const LARGEST: usize = 8 << 20;
/// Every block begins at a multiple.
const ALIGN: usize = 16;
/// Blocks up to this size are kept by multiples of [`ALIGN`].
const SMALL: usize = 1024;
/// Sizes from there on between a power of two and the next.
const STEPS: usize = 4;
/// How many sizes there are: the small ones, 0 among them, and [`STEPS`] for each doubling up to [`LARGEST`].
const SIZES: usize = SMALL / ALIGN + 1 + STEPS * (LARGEST / SMALL).ilog2() as usize;

/// Gives the main thread the arena. Called once, there.
pub fn start() {
    let mut options = MmapOptions::new();
    let Ok(map) = options.len(SIZE).no_reserve_swap().map_anon() else { return };
    IS_MAIN.with(|main| {
        // SAFETY: only the thread for which `IS_MAIN` is set touches the arena, and it is set nowhere else: this is the one
        // thread, and nobody else holds a reference to the inside.
        let arena = unsafe { &mut *MEMORY.arena.get() };
        arena.begin = map.as_ptr().expose_provenance();
        arena.next = arena.begin;
        arena.ready = arena.begin;
        BEGIN.store(arena.begin, Ordering::Relaxed);
        arena.map = Some(map);
        main.set(true);
    });
}

/// Where the arena begins, for all threads; 0 before there is one.
static BEGIN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static IS_MAIN: Cell<bool> = const { Cell::new(false) };
}

#[global_allocator]
static MEMORY: Memory = Memory { arena: UnsafeCell::new(Arena::new()) };

struct Memory {
    arena: UnsafeCell<Arena>,
}

// SAFETY: the arena is only touched by the thread that called `start`.
unsafe impl Sync for Memory {}

struct Arena {
    map: Option<MmapMut>,
    /// Its first byte.
    begin: usize,
    /// Behind the last block.
    next: usize,
    /// Pages up to here were asked for.
    ready: usize,
    /// The first free block of each size; each holds the address of the next.
    free: [usize; SIZES],
}

/// The index of the smallest size that holds `size` bytes, and that size.
fn class(size: usize) -> (usize, usize) {
    if size <= SMALL {
        let index = size.div_ceil(ALIGN);
        return (index, index * ALIGN);
    }
    let power = (size - 1).ilog2();
    let step = (1 << power) / STEPS;
    let steps = (size - (1 << power)).div_ceil(step);
    let doublings = (power - SMALL.ilog2()) as usize;
    (SMALL / ALIGN + doublings * STEPS + steps, (1 << power) + steps * step)
}

impl Arena {
    const fn new() -> Self {
        Self { map: None, begin: 0, next: 0, ready: 0, free: [0; SIZES] }
    }

    /// A block from the end; 0 when there is no room.
    fn cut(&mut self, size: usize) -> usize {
        let at = self.next;
        if size > self.begin + SIZE - at {
            return 0;
        }
        self.reach(at + size);
        at
    }

    /// Moves the end, and asks for the pages up to there.
    fn reach(&mut self, end: usize) {
        self.next = end;
        if end > self.ready {
            let until = end.next_multiple_of(AHEAD).min(self.begin + SIZE);
            if let Some(map) = &self.map {
                // An older kernel does not know it, and makes a page when it is first touched.
                let _ = map.advise_range(Advice::PopulateWrite, self.ready - self.begin, until - self.ready);
            }
            self.ready = until;
        }
    }
}

impl Memory {
    /// The arena, if the caller is the thread that has it.
    #[expect(clippy::mut_from_ref, reason = "one thread has it, and no caller below keeps it")]
    fn own(&self) -> Option<&mut Arena> {
        // SAFETY: no other thread gets here, and the reference ends with the call of the allocator, which calls nothing that
        // allocates.
        IS_MAIN.try_with(Cell::get).unwrap_or(false).then(|| unsafe { &mut *self.arena.get() })
    }
}

/// Was the block cut out of the arena? Other threads ask as well.
fn is_within(block: *mut u8) -> bool {
    let begin = BEGIN.load(Ordering::Relaxed);
    begin != 0 && block.addr().wrapping_sub(begin) < SIZE
}

// SAFETY: a block is either the system's or one of the arena: large enough, aligned, and not handed out a second time before it was
// freed, because it is cut off the end or taken off the list of its size, where only freed ones are.
unsafe impl GlobalAlloc for Memory {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() <= LARGEST
            && layout.align() <= ALIGN
            && let Some(arena) = self.own()
        {
            let (index, size) = class(layout.size());
            let first = arena.free[index];
            if first != 0 {
                let block = with_exposed_provenance_mut::<usize>(first);
                // SAFETY: a free block holds the address of the next one in its first word.
                arena.free[index] = unsafe { block.read() };
                return block.cast();
            }
            let block = arena.cut(size);
            if block != 0 {
                return with_exposed_provenance_mut(block);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !is_within(block) {
            // SAFETY: it is the system's.
            return unsafe { System.dealloc(block, layout) };
        }
        // What another thread frees is lost: the arena is small.
        if let Some(arena) = self.own() {
            let (index, _) = class(layout.size());
            // SAFETY: the block is of this size, at least a word, aligned for one, and nobody uses it any more.
            unsafe { block.cast::<usize>().write(arena.free[index]) };
            arena.free[index] = block.expose_provenance();
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST || layout.align() > ALIGN {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's promise.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block is that large.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, wanted: usize) -> *mut u8 {
        if !is_within(block) {
            // SAFETY: it is the system's.
            return unsafe { System.realloc(block, layout, wanted) };
        }
        let (index, size) = class(layout.size());
        if wanted <= LARGEST {
            let (wanted_index, wanted_size) = class(wanted);
            if wanted_index == index {
                return block;
            }
            if let Some(arena) = self.own()
                && block.addr() + size == arena.next
                && wanted_size > size
                && wanted_size - size <= arena.begin + SIZE - arena.next
            {
                // The last one grows where it is.
                arena.reach(block.addr() + wanted_size);
                return block;
            }
        }
        let Ok(new_layout) = Layout::from_size_align(wanted, layout.align()) else { return null_mut() };
        // SAFETY: the caller's promise; both blocks hold the smaller of the two sizes, and they are not the same.
        unsafe {
            let new = self.alloc(new_layout);
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size().min(wanted));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_hold_what_they_are_for_and_waste_at_most_a_quarter() {
        let mut before = (0, 0);
        for wanted in (1..4 * SMALL).chain((4 * SMALL..=LARGEST).step_by(1000)).chain([LARGEST]) {
            let (index, size) = class(wanted);
            assert!(size >= wanted && size.is_multiple_of(ALIGN) && index < SIZES, "{wanted}");
            assert!(size - wanted < ALIGN.max(wanted / STEPS + 1), "{wanted} {size}");
            assert_eq!(index == before.0, size == before.1, "{wanted}");
            assert!(index >= before.0);
            before = (index, size);
        }
    }

    #[test]
    fn blocks_keep_what_is_written_to_them() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let work = move || {
            start();
            let mut held: Vec<(u8, Vec<u8>)> = Vec::new();
            for _ in 0..20_000 {
                let most = if next() % 64 == 0 { 1 << 20 } else { 1 << (next() % 12) };
                let (size, at) = ((next() % most + 1) as usize, next() as usize);
                match next() % 4 {
                    0 | 1 if held.len() < 200 => {
                        let fill = next() as u8;
                        held.push((fill, if fill == 0 { vec![0; size] } else { [fill].repeat(size) }));
                    }
                    2 if !held.is_empty() => {
                        let at = at % held.len();
                        let (fill, block) = &mut held[at];
                        block.resize(size, *fill);
                        block.shrink_to_fit();
                    }
                    _ if !held.is_empty() => {
                        let (fill, block) = held.swap_remove(at % held.len());
                        assert!(block.iter().all(|b| *b == fill));
                    }
                    _ => {}
                }
            }
            assert!(held.iter().all(|(fill, block)| block.iter().all(|b| b == fill)));
            assert!(is_within(held.as_mut_ptr().cast()));
            held
        };
        // What another thread gets stays as it is, and may be dropped there.
        let held = std::thread::spawn(work).join().unwrap();
        assert!(held.iter().all(|(fill, block)| block.iter().all(|b| b == fill)));
    }
}
