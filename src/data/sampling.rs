//! Which training samples an epoch has, and in which order: a pure function of the seed and the epoch.

use crate::rng::{Purpose, Stream, permute};
use std::collections::BTreeMap;

/// As many samples as `order` has room for, each class that is there equally often (some once more, if that does not go
/// up), in random order. Of a class no sample comes once more before all others have come as often.
pub(super) fn balanced(classes: impl Iterator<Item = u32>, seed: u64, epoch: u64, order: &mut [u32]) {
    let mut of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (sample, class) in classes.enumerate() {
        of.entry(class).or_default().push(sample as u32);
    }
    let mut stream = Stream::new(seed, Purpose::Balance, epoch, 0);
    let mut turns: Vec<u32> = of.keys().copied().collect();
    permute(&mut stream, &mut turns);
    let (each, more) = (order.len() / turns.len().max(1), order.len() % turns.len().max(1));
    let mut rest = &mut *order;
    for (turn, class) in turns.iter().enumerate() {
        let Some(samples) = of.get_mut(class) else { continue };
        let (mut drawn, others) = rest.split_at_mut(each + usize::from(turn < more));
        rest = others;
        while !drawn.is_empty() {
            permute(&mut stream, samples);
            let (now, later) = drawn.split_at_mut(samples.len().min(drawn.len()));
            now.copy_from_slice(&samples[..now.len()]);
            drawn = later;
        }
    }
    permute(&mut Stream::new(seed, Purpose::Shuffle, epoch, 0), order);
}

/// Bytes in memory of a block, where the file has no chunks, and of the samples that are shuffled among one another.
pub(super) const BLOCK_BYTES: usize = 1 << 18;
pub(super) const WINDOW_BYTES: usize = 1 << 25;

/// How many blocks of so many samples of `size` bytes are shuffled among one another.
pub(super) fn window(block: usize, size: usize) -> usize {
    (WINDOW_BYTES / (block * size).max(1)).max(2)
}

/// A block shuffle of 0..order.len(): blocks in random order, and the samples of each `window` blocks among one another.
/// `block` tells which block a sample is of; it never falls from one sample to the next.
pub(super) fn blocks(block: impl Fn(u32) -> usize, window: usize, seed: u64, epoch: u64, order: &mut [u32]) {
    let samples: Vec<u32> = (0..order.len() as u32).collect();
    let blocks: Vec<&[u32]> = samples.chunk_by(|&before, &after| block(before) == block(after)).collect();
    let mut turns: Vec<u32> = (0..blocks.len() as u32).collect();
    permute(&mut Stream::new(seed, Purpose::Shuffle, epoch, 0), &mut turns);
    let mut rest = order;
    for (number, turns) in turns.chunks(window).enumerate() {
        let len = turns.iter().map(|&turn| blocks[turn as usize].len()).sum();
        let (now, later) = rest.split_at_mut(len);
        rest = later;
        let samples = turns.iter().flat_map(|&turn| blocks[turn as usize]);
        now.iter_mut().zip(samples).for_each(|(slot, sample)| *slot = *sample);
        permute(&mut Stream::new(seed, Purpose::Shuffle, epoch, 1 + number as u64), now);
    }
}

/// What that does to the rarest and the commonest class, in words.
pub(super) fn told(names: &[String], counts: &[u64]) -> Option<String> {
    let there = || counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let each = counts.iter().sum::<u64>() as f64 / there().count() as f64;
    let (rare, few) = there().min_by_key(|(_, count)| **count)?;
    let (common, many) = there().max_by_key(|(_, count)| **count)?;
    let times = |count: &u64| each / *count as f64;
    Some(format!(
        "balanced sampling: an epoch has {each:.0} of each class, so that a sample of class {} ({few} samples) comes {:.2} times \
         on average and one of class {} ({many}) {:.2} times",
        names.get(rare)?,
        times(few),
        names.get(common)?,
        times(many),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_comes_equally_often_and_no_sample_much_more_than_others() {
        // 50, 7 and 43 samples of the classes 0, 2 and 3.
        let class = |sample: usize| {
            if sample < 50 {
                0
            } else if sample < 57 {
                2
            } else {
                3
            }
        };
        let draw = |seed, epoch| {
            let mut order = vec![0; 100];
            balanced((0..100).map(class), seed, epoch, &mut order);
            order
        };
        for epoch in 0..20 {
            let order = draw(5, epoch);
            let mut times = [0; 100];
            order.iter().for_each(|&sample| times[sample as usize] += 1);
            for samples in [0..50, 50..57, 57..100] {
                let of_class = &times[samples];
                let sum: i32 = of_class.iter().sum();
                assert!((33..=34).contains(&sum), "{sum}");
                assert!(of_class.iter().max().unwrap() - of_class.iter().min().unwrap() <= 1, "{of_class:?}");
            }
            assert_eq!(order, draw(5, epoch));
            assert_ne!(order, draw(5, epoch + 1));
            assert_ne!(order, draw(6, epoch));
            // Classes are mixed, not one after the other.
            assert!(order[..30].iter().any(|&s| s < 50) && order[..30].iter().any(|&s| s > 57));
        }
    }

    #[test]
    fn a_block_shuffle_mixes_whole_blocks_and_loses_none() {
        let of = |seed, epoch, len, window| {
            let mut order = vec![0; len];
            blocks(|sample| sample as usize / 10, window, seed, epoch, &mut order);
            order
        };
        for (len, window) in [(1000, 4), (1003, 7), (5, 2), (0, 2), (95, 100)] {
            let order = of(1, 2, len, window);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..len as u32).collect::<Vec<_>>(), "{len}");
            assert_eq!(order, of(1, 2, len, window));
        }
        let order = of(1, 2, 1000, 4);
        assert!(order != of(1, 3, 1000, 4) && order != of(2, 2, 1000, 4));
        let mut first: Vec<u32> = order[..40].iter().map(|sample| sample / 10).collect();
        assert!(order[..40].windows(2).filter(|pair| pair[1] == pair[0] + 1).count() < 10, "samples are mixed");
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 4, "of four blocks");
        assert!(first != [0, 1, 2, 3] || of(1, 3, 1000, 4)[..40].iter().any(|&sample| sample > 40));
    }

    #[test]
    fn fewer_samples_than_classes_are_no_harm() {
        for len in 0..4 {
            let mut order = vec![9; len];
            balanced(0..len as u32, 1, 2, &mut order);
            order.sort_unstable();
            assert_eq!(order, (0..len as u32).collect::<Vec<_>>());
        }
    }
}
