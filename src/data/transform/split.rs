//! Which samples of the training part are learnt from, and which are kept back to validate on.

use crate::config::DataConfig;
use crate::rng::{Purpose, Stream, permute};
use std::borrow::Cow;

/// Sample numbers in the training part, ascending.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::data) struct Selection {
    /// To learn from.
    pub train: Vec<u32>,
    /// Kept back.
    pub validation: Vec<u32>,
}

impl Selection {
    /// `data.validation` of `len` samples, drawn by the seed; None where all are learnt from.
    pub fn drawn(config: &DataConfig, seed: u64, len: usize) -> Option<Self> {
        let wanted = wanted(config, len)?;
        let mut order: Vec<u32> = (0..len as u32).collect();
        permute(&mut Stream::new(seed, Purpose::Validation, 0, 0), &mut order);
        let (mut validation, mut train) = (order[..wanted].to_vec(), order[wanted..].to_vec());
        validation.sort_unstable();
        train.sort_unstable();
        Some(Self { train, validation })
    }

    /// The last share of each of several runs of samples, as long as `runs` says: series are cut in time.
    pub fn last(config: &DataConfig, runs: &[usize]) -> Option<Self> {
        let mut selection = Self::default();
        let mut first = 0;
        for &len in runs {
            let kept = len - wanted(config, len)?;
            let number = |sample: usize| (first + sample) as u32;
            selection.train.extend((0..kept).map(number));
            selection.validation.extend((kept..len).map(number));
            first += len;
        }
        Some(selection)
    }
}

/// Of samples of `width` values each, those that are learnt from: what is fitted on the training part is fitted on them.
pub(in crate::data) fn learnt<'v, T: Copy>(
    selection: &Option<Selection>,
    values: &'v [T],
    width: usize,
) -> Cow<'v, [T]> {
    match selection {
        None => Cow::Borrowed(values),
        Some(selection) => {
            let sample = |&sample: &u32| &values[sample as usize * width..][..width];
            Cow::Owned(selection.train.iter().flat_map(sample).copied().collect())
        }
    }
}

/// How many of `len` samples are kept back: at least one, and not all.
pub(in crate::data) fn wanted(config: &DataConfig, len: usize) -> Option<usize> {
    let share = config.validation;
    (share > 0.0).then(|| ((share * len as f64).round() as usize).clamp(1, len.saturating_sub(1).max(1)).min(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Component;

    fn config(validation: f64) -> DataConfig {
        let source = Component::new("synthetic", "").unwrap();
        DataConfig { validation, ..DataConfig::from_component(source).unwrap() }
    }

    #[test]
    fn each_sample_is_in_one_part() {
        for (len, kept) in [(10, 2), (1000, 200), (2, 1), (3, 1)] {
            let drawn = Selection::drawn(&config(0.2), 7, len).unwrap();
            assert_eq!((drawn.validation.len(), drawn.train.len()), (kept, len - kept));
            let mut all = [drawn.train.clone(), drawn.validation.clone()].concat();
            all.sort_unstable();
            assert_eq!(all, (0..len as u32).collect::<Vec<_>>());
            let values: Vec<usize> = (0..3 * len).collect();
            assert!(learnt(&None, &values, 3) == values);
            let first = drawn.train[0] as usize;
            assert_eq!(learnt(&Some(drawn.clone()), &values, 3)[..3], values[3 * first..3 * first + 3]);
            assert_eq!(Selection::drawn(&config(0.2), 7, len), Some(drawn));
        }
        assert_ne!(Selection::drawn(&config(0.2), 7, 1000), Selection::drawn(&config(0.2), 8, 1000));
        assert_eq!(Selection::drawn(&config(0.0), 7, 10), None);
    }

    #[test]
    fn series_are_cut_in_time() {
        let cut = Selection::last(&config(0.25), &[4, 8]).unwrap();
        assert_eq!(cut.train, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
        assert_eq!(cut.validation, [3, 10, 11]);
    }
}
