//! A barrier in shared memory: 0.1 µs where MPI's takes longer and wakes its progress engine.

use super::Shared;
use std::sync::atomic::{AtomicU32, Ordering};

/// Words of shared memory that a barrier takes: two, on cache lines of their own.
pub(super) const WORDS: usize = 64;
const ARRIVED: usize = 0;
const ROUND: usize = 32;

/// How often to look before the core is offered to others: about 50 µs. With more ranks than cores the one that all
/// wait for needs it.
const SPINS: u32 = 2_000;

/// All of `ranks` ranks wait for each other.
pub(super) struct Barrier {
    words: Shared<u32>,
    ranks: u32,
}

impl Barrier {
    pub(super) fn new(words: Shared<u32>, ranks: usize) -> Self {
        assert!(words.len() >= WORDS);
        Self { words, ranks: ranks as u32 }
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: the word is aligned, lives as long as `self`, and all ranks touch it by atomic operations only.
        unsafe { AtomicU32::from_ptr(self.words[at..].as_ptr().cast_mut()) }
    }

    /// What any rank wrote before its call, all see after theirs.
    pub(super) fn wait(&self) {
        let (arrived, round) = (self.word(ARRIVED), self.word(ROUND));
        let this = round.load(Ordering::Acquire);
        if arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.ranks {
            // The last one. Nobody arrives for the next round before the round changes.
            arrived.store(0, Ordering::Relaxed);
            round.store(this.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while round.load(Ordering::Acquire) == this {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Threads of one process stand for ranks here: the words are the same memory for all.
    struct Threads(Barrier);
    // SAFETY: only the atomic words are used across threads.
    unsafe impl Sync for Threads {}

    #[test]
    fn nobody_passes_before_all_have_come() {
        const RANKS: usize = 4;
        let barrier = Threads(Barrier::new(Shared::private(WORDS), RANKS));
        let came = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..RANKS {
                scope.spawn(|| {
                    let barrier = &barrier;
                    for round in 1..=2000 {
                        came.fetch_add(1, Ordering::Relaxed);
                        barrier.0.wait();
                        assert!(came.load(Ordering::Relaxed) >= round * RANKS);
                        barrier.0.wait();
                        assert!(came.load(Ordering::Relaxed) <= (round + 1) * RANKS);
                    }
                });
            }
        });
        assert_eq!(came.into_inner(), 2000 * RANKS);
    }
}
