//! Counter-based random numbers: a stream is a pure function of (seed, purpose, step or epoch, sample).
//!
//! Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC11). Nothing here
//! knows a rank, so whichever rank asks for a stream gets the same numbers.

use rand::RngCore;
use std::cell::Cell;

/// What a stream is for; streams of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Initial weights; the index is the parameter's.
    Init = 1,
    /// The order of samples in an epoch.
    Shuffle = 2,
    /// Dropout; its streams are told apart by [`Stream::numbered`].
    Dropout = 3,
    /// Random changes to one sample.
    Augment = 4,
    /// Synthetic data.
    Synthetic = 5,
    /// Which rows of a table are for testing; the epoch is the class.
    Split = 6,
    /// Which samples are kept back to validate on.
    Validation = 7,
    /// Which samples of each class an epoch has, where it has equally many of each.
    Balance = 8,
    /// Which samples of a step's batch are mixed, and how.
    Mixup = 9,
}

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox4x32: 128 random bits from a counter and a key.
#[inline(always)]
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let p1 = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter =
            [(p1 >> 32) as u32 ^ counter[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ counter[3] ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// A stream of random numbers. It implements [`RngCore`], so the distributions of `rand` work on it.
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    prefix: [u32; 3],
    block: u32,
    buffer: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of (seed, purpose, `epoch` or step, `index` of the sample or parameter).
    /// `epoch` counts below 2^26 and `index` below 2^40; higher bits are folded in.
    pub fn new(seed: u64, purpose: Purpose, epoch: u64, index: u64) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        let high = (index >> 32) as u32 ^ ((epoch >> 32) as u32) << 8;
        Self {
            key,
            prefix: [index as u32, epoch as u32, high ^ (purpose as u32) << 24],
            block: 0,
            buffer: [0; 4],
            used: 4,
        }
    }

    /// The same stream for one user of many that share a purpose: its number, from [`Numbers`], goes into the key.
    pub fn numbered(mut self, number: u32) -> Self {
        self.key[1] ^= number.wrapping_mul(0x85EB_CA6B);
        self
    }

    /// The stream's `block`-th 128 bits; the counter form, for code that fills arrays.
    #[inline(always)]
    pub fn at(&self, block: u32) -> [u32; 4] {
        philox([block, self.prefix[0], self.prefix[1], self.prefix[2]], self.key)
    }

    /// Blocks `first..first + N`, as N numbers of each of the four words: side by side they vectorise.
    #[inline(always)]
    pub fn at_many<const N: usize>(&self, first: u32) -> [[u32; N]; 4] {
        let mut counters = [[0; N], [self.prefix[0]; N], [self.prefix[1]; N], [self.prefix[2]; N]];
        for block in 0..N {
            counters[0][block] = first.wrapping_add(block as u32);
        }
        let mut key = self.key;
        for _ in 0..10 {
            for block in 0..N {
                let p0 = u64::from(MULTIPLIER[0]) * u64::from(counters[0][block]);
                let p1 = u64::from(MULTIPLIER[1]) * u64::from(counters[2][block]);
                counters[0][block] = (p1 >> 32) as u32 ^ counters[1][block] ^ key[0];
                counters[1][block] = p1 as u32;
                counters[2][block] = (p0 >> 32) as u32 ^ counters[3][block] ^ key[1];
                counters[3][block] = p0 as u32;
            }
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        counters
    }

    /// A number in [0, 1) with 24 random bits.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// An integer in [0, `bound`), without bias (Lemire, "Fast random integer generation in an interval", 2019).
    pub fn below(&mut self, bound: u32) -> u32 {
        debug_assert!(bound > 0);
        let mut product = u64::from(self.next_u32()) * u64::from(bound);
        if (product as u32) < bound {
            let threshold = bound.wrapping_neg() % bound;
            while (product as u32) < threshold {
                product = u64::from(self.next_u32()) * u64::from(bound);
            }
        }
        (product >> 32) as u32
    }
}

impl RngCore for Stream {
    #[inline]
    fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.buffer = self.at(self.block);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.buffer[self.used - 1]
    }

    fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(4) {
            chunk.copy_from_slice(&self.next_u32().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Hands out the numbers of a network's random streams, each once, in the order of asking.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Numbers(Cell<u32>);

impl Numbers {
    /// The next number.
    pub fn take(&self) -> u32 {
        self.0.replace(self.0.get().wrapping_add(1))
    }
}

/// A permutation of 0..n for (seed, epoch), the same on every rank, into `order`.
pub fn shuffle(seed: u64, epoch: u64, order: &mut [u32]) {
    for (i, slot) in order.iter_mut().enumerate() {
        *slot = i as u32;
    }
    permute(&mut Stream::new(seed, Purpose::Shuffle, epoch, 0), order);
}

/// Puts `order` into another at random (Fisher-Yates).
pub fn permute(stream: &mut Stream, order: &mut [u32]) {
    for i in (1..order.len()).rev() {
        order.swap(i, stream.below(i as u32 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        // kat_vectors of Random123.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn blocks_side_by_side_are_the_blocks_one_by_one() {
        let stream = Stream::new(9, Purpose::Dropout, 4, 77).numbered(3);
        let many = stream.at_many::<8>(u32::MAX - 2);
        for block in 0..8 {
            assert_eq!(many.map(|word| word[block]), stream.at((u32::MAX - 2).wrapping_add(block as u32)));
        }
    }

    #[test]
    fn streams_differ_by_every_part_of_their_key() {
        let first = |mut s: Stream| s.next_u64();
        let base = first(Stream::new(1, Purpose::Init, 2, 3));
        assert_eq!(base, first(Stream::new(1, Purpose::Init, 2, 3)));
        for other in [
            Stream::new(2, Purpose::Init, 2, 3),
            Stream::new(1, Purpose::Shuffle, 2, 3),
            Stream::new(1, Purpose::Init, 3, 3),
            Stream::new(1, Purpose::Init, 2, 4),
            Stream::new(1, Purpose::Init, 2, 3 + (1 << 32)),
            Stream::new(1, Purpose::Init, 2, 3).numbered(1),
        ] {
            assert_ne!(base, first(other));
        }
    }

    #[test]
    fn shuffle_is_a_permutation_and_changes_with_the_epoch() {
        let (mut a, mut b) = (vec![0; 1000], vec![0; 1000]);
        shuffle(7, 0, &mut a);
        shuffle(7, 1, &mut b);
        assert_ne!(a, b);
        for order in [&mut a, &mut b] {
            order.sort_unstable();
            assert!(order.iter().enumerate().all(|(i, &v)| i as u32 == v));
        }
    }

    #[test]
    fn below_is_uniform() {
        let mut stream = Stream::new(3, Purpose::Synthetic, 0, 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[stream.below(7) as usize] += 1;
        }
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
    }
}
