//! A barrier in shared memory: 0.1 µs where MPI's takes longer and wakes its progress engine.

use super::{Atomics, watch};
use std::sync::atomic::Ordering;

/// Numbers that a barrier takes.
pub(super) const NUMBERS: usize = 2;
const ARRIVED: usize = 0;
const ROUND: usize = 1;

/// How often to look before the core is offered to others: about 50 µs. With more ranks than cores the one that all
/// wait for needs it.
const SPINS: u32 = 2_000;

/// All of `ranks` ranks wait for each other.
pub(super) struct Barrier {
    numbers: Atomics,
    ranks: u32,
}

impl Barrier {
    /// Of so many ranks.
    pub(super) fn new(numbers: Atomics, ranks: usize) -> Self {
        Self { numbers, ranks: ranks as u32 }
    }

    /// What any rank wrote before its call, all see after theirs.
    pub(super) fn wait(&self) {
        let (arrived, round) = (self.numbers.at(ARRIVED), self.numbers.at(ROUND));
        let this = round.load(Ordering::Acquire);
        if arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.ranks {
            // The last one. Nobody arrives for the next round before the round changes.
            arrived.store(0, Ordering::Relaxed);
            round.store(this.wrapping_add(1), Ordering::Release);
            return;
        }
        for _ in 0..SPINS {
            if round.load(Ordering::Acquire) != this {
                return;
            }
            std::hint::spin_loop();
        }
        let _waiting = watch::waiting();
        while round.load(Ordering::Acquire) == this {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Threads of one process stand for ranks here: the numbers are the same memory for all.
    struct Threads(Barrier);
    // SAFETY: only atomic numbers are used across threads.
    unsafe impl Sync for Threads {}

    #[test]
    fn nobody_passes_before_all_have_come() {
        const RANKS: usize = 4;
        let barrier = Threads(Barrier::new(Atomics::private(NUMBERS), RANKS));
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
