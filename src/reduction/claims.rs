//! Who works on what: each rank of a host on its own items, then on those that slower ranks have not come to yet.

use crate::comm::{Atomics, Host};
use crate::error::Result;
use crate::shard::own;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Items that a rank takes at once: few enough to leave some for others, enough that taking them costs nothing.
const AT_ONCE: usize = 8;

/// Who has taken what.
pub(super) struct Claims {
    /// For each rank of the host, how many of its items have been taken.
    taken: Atomics,
    items: usize,
    rank: usize,
    ranks: usize,
}

impl Claims {
    /// For `items` items.
    ///
    /// # Errors
    /// The host has no memory to share for them.
    pub fn build(host: &dyn Host, items: usize) -> Result<Self> {
        let (rank, ranks) = (host.rank(), host.size());
        Ok(Self { taken: Atomics::within(host.share(Atomics::elements(ranks))?), items, rank, ranks })
    }

    /// This rank's own items.
    pub fn own(&self) -> Range<usize> {
        own(self.items, self.rank, self.ranks)
    }

    /// The next items for this rank: its own, then those of others; none when all are taken. Each is taken once, until
    /// [`reset`](Self::reset). `passed` counts the ranks of which none is left; start at 0.
    pub fn take(&self, passed: &mut usize) -> Option<Range<usize>> {
        while *passed < self.ranks {
            let owner = (self.rank + *passed) % self.ranks;
            let items = own(self.items, owner, self.ranks);
            let first = items.start + self.taken.at(owner).fetch_add(AT_ONCE as u32, Ordering::Relaxed) as usize;
            if first < items.end {
                return Some(first..items.end.min(first + AT_ONCE));
            }
            *passed += 1;
        }
        None
    }

    /// Gives this rank's items back: between the barrier after which none is left and the one before the next is taken.
    pub fn reset(&self) {
        self.taken.at(self.rank).store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(claims: &Claims) -> Vec<usize> {
        let mut passed = 0;
        std::iter::from_fn(|| claims.take(&mut passed)).flatten().collect()
    }

    #[test]
    fn each_item_is_taken_once_whoever_is_slow() {
        for (items, ranks) in [(0, 3), (1, 2), (23, 1), (100, 3), (1000, 4)] {
            let claims = |rank| Claims { taken: Atomics::private(ranks), items, rank, ranks };
            // The first rank to come does all that is left, from wherever the others are.
            for rank in 0..ranks {
                let claims = claims(rank);
                let begun = own(items, (rank + 1) % ranks, ranks);
                let some = begun.len().min(AT_ONCE);
                claims.taken.at((rank + 1) % ranks).store(some as u32, Ordering::Relaxed);
                let mut times = vec![0; items];
                begun.take(some).for_each(|item| times[item] += 1);
                rest(&claims).into_iter().for_each(|item| times[item] += 1);
                assert!(times.iter().all(|&times| times == 1), "{items} items, rank {rank} of {ranks}: {times:?}");
            }
        }
        let claims = Claims { taken: Atomics::private(1), items: 5, rank: 0, ranks: 1 };
        for _ in 0..2 {
            assert_eq!(rest(&claims), [0, 1, 2, 3, 4]);
            assert!(rest(&claims).is_empty());
            claims.reset();
        }
    }
}
