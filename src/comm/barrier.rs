//! A barrier in shared memory: 0.1 µs where MPI's takes longer and wakes its progress engine.

use super::Atomics;
use crate::resource::host_name;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Numbers that a barrier of `ranks` ranks takes.
pub(super) const fn numbers(ranks: usize) -> usize {
    2 + 2 * ranks
}
const ARRIVED: usize = 0;
const ROUND: usize = 1;
/// From here on each rank has its process's number, and one more than the round it came to last.
const OF_RANKS: usize = 2;

/// How long ranks wait before they say for whom; then twice as long, and so on.
const PATIENCE: Duration = Duration::from_secs(10);
/// Looks between looks at the clock.
const LOOKS: u32 = 1_000;

/// How often to look before the core is offered to others: about 50 µs. With more ranks than cores the one that all
/// wait for needs it.
const SPINS: u32 = 2_000;

/// All of `ranks` ranks wait for each other.
pub(super) struct Barrier {
    numbers: Atomics,
    ranks: u32,
    /// This rank's number on the host.
    rank: usize,
    /// The ranks' numbers in the job.
    names: Vec<usize>,
}

impl Barrier {
    /// Of the ranks that the job calls `names`, of which this is the one at `rank`.
    pub(super) fn new(numbers: Atomics, rank: usize, names: Vec<usize>) -> Self {
        numbers.at(OF_RANKS + 2 * rank).store(std::process::id(), Ordering::Relaxed);
        Self { numbers, ranks: names.len() as u32, rank, names }
    }

    /// What any rank wrote before its call, all see after theirs.
    pub(super) fn wait(&self) {
        let (arrived, round) = (self.numbers.at(ARRIVED), self.numbers.at(ROUND));
        let this = round.load(Ordering::Acquire);
        self.numbers.at(OF_RANKS + 2 * self.rank + 1).store(this.wrapping_add(1), Ordering::Relaxed);
        if arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.ranks {
            // The last one. Nobody arrives for the next round before the round changes.
            arrived.store(0, Ordering::Relaxed);
            round.store(this.wrapping_add(1), Ordering::Release);
            return;
        }
        let (mut spins, mut began, mut patience) = (0, None, PATIENCE);
        while round.load(Ordering::Acquire) == this {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
                continue;
            }
            std::thread::yield_now();
            spins += 1;
            if spins.is_multiple_of(LOOKS) {
                // Below SPINS it would spin again.
                spins = SPINS;
                let began = *began.get_or_insert_with(Instant::now);
                if began.elapsed() >= patience {
                    patience *= 2;
                    self.tell(this, began.elapsed());
                }
            }
        }
    }

    /// Says for whom this host's ranks wait; one of them does.
    fn tell(&self, round: u32, waited: Duration) {
        let has_come =
            |rank: &usize| self.numbers.at(OF_RANKS + 2 * rank + 1).load(Ordering::Relaxed) == round.wrapping_add(1);
        if (0..self.names.len()).find(has_come) != Some(self.rank) {
            return;
        }
        let missing = (0..self.names.len()).filter(|rank| !has_come(rank)).map(|rank| {
            let process = self.numbers.at(OF_RANKS + 2 * rank).load(Ordering::Relaxed);
            format!("rank {} (process {process}, {})", self.names[rank], state(process))
        });
        let missing: Vec<String> = missing.collect();
        if !missing.is_empty() {
            let (host, seconds) = (host_name(), waited.as_secs());
            let line = format!("warning: ranks on {host} have waited {seconds} s for {}\n", missing.join(", "));
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// What a process is at, as the system sees it.
fn state(process: u32) -> &'static str {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        Some('T' | 't') => "stopped; kill -CONT lets it go on",
        Some('D') => "waiting for a disk",
        Some('Z' | 'X') => "dead",
        Some('R') => "at work",
        Some(_) => "asleep",
        None => "not to be seen",
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
        let barrier = Threads(Barrier::new(Atomics::private(numbers(RANKS)), 0, (0..RANKS).collect()));
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
