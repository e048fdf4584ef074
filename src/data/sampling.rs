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
    fn fewer_samples_than_classes_are_no_harm() {
        for len in 0..4 {
            let mut order = vec![9; len];
            balanced(0..len as u32, 1, 2, &mut order);
            order.sort_unstable();
            assert_eq!(order, (0..len as u32).collect::<Vec<_>>());
        }
    }
}
