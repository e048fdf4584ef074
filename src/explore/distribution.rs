//! What a set of values looks like: moments, quantiles, a histogram. Pure arithmetic in a fixed order.

use serde::{Deserialize, Serialize};

/// Intervals of a histogram.
pub const BINS: usize = 64;

/// Count, mean, spread and range of values, without the values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Σ (value − mean)².
    pub squares: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Self { count: 0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Moments {
    /// Of finite values, in two passes (exact where the mean is large against the deviation).
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (mut count, mut sum) = (0u64, 0.0);
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.clone() {
            count += 1;
            sum += value;
            min = min.min(value);
            max = max.max(value);
        }
        if count == 0 {
            return Self::default();
        }
        // The mean of equal values is that value, without rounding.
        let mean = if min == max { min } else { sum / count as f64 };
        let squares = values.map(|value| (value - mean) * (value - mean)).sum();
        Self { count, mean, squares, min, max }
    }

    /// Those of both sets together (Chan, Golub and LeVeque, 1979). The order of merges counts in the last bits, so that it
    /// must be one that no number of ranks changes.
    pub fn merge(self, other: Self) -> Self {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        let count = self.count + other.count;
        let (share, apart) = (other.count as f64 / count as f64, other.mean - self.mean);
        Self {
            count,
            mean: self.mean + apart * share,
            squares: self.squares + other.squares + apart * apart * self.count as f64 * share,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }

    /// Of the population.
    pub fn deviation(&self) -> f64 {
        if self.count == 0 { f64::NAN } else { (self.squares / self.count as f64).sqrt() }
    }
}

/// Counts of values in equal intervals.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// Where the first interval begins.
    pub from: f64,
    /// Where the last one ends; that value belongs to it.
    pub to: f64,
    /// Values in each.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Of values within `from` to `to`.
    pub fn of(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let mut histogram = Self { from, to, counts: vec![0; BINS] };
        values.for_each(|value| histogram.add(value));
        histogram
    }

    /// Counts one value more.
    pub fn add(&mut self, value: f64) {
        let place = (value - self.from) / (self.to - self.from) * self.counts.len() as f64;
        // One range for all equal values: NaN becomes 0.
        let place = (place as usize).min(self.counts.len() - 1);
        self.counts[place] += 1;
    }
}

/// A set of values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many values there are; those that are not finite are left out.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Of the population.
    pub deviation: f64,
    /// The lowest.
    pub min: f64,
    /// At 5, 25, 50, 75 and 95 %, between the two nearest values in proportion.
    pub quantiles: [f64; 5],
    /// The highest.
    pub max: f64,
    /// How many different ones there are.
    pub distinct: u64,
    /// From the lowest to the highest.
    pub histogram: Histogram,
}

/// The shares at which [`Distribution::quantiles`] stand.
pub const QUANTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

impl Distribution {
    /// Of values in their order; None where none is finite.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        if values.is_empty() {
            return None;
        }
        let moments = Moments::of(values.iter().copied());
        values.sort_unstable_by(f64::total_cmp);
        let histogram = Histogram::of(values.iter().copied(), moments.min, moments.max);
        Some(Self {
            count: moments.count,
            mean: moments.mean,
            deviation: moments.deviation(),
            min: moments.min,
            quantiles: QUANTILES.map(|share| quantile(&values, share)),
            max: moments.max,
            distinct: values.chunk_by(|a, b| a == b).count() as u64,
            histogram,
        })
    }
}

/// Of sorted values, as numpy's default.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place as usize], sorted[(place as usize + 1).min(sorted.len() - 1)]);
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_parts_are_those_of_the_whole() {
        let values: Vec<f64> = (0..1000).map(|i| 1e6 + f64::from(i * i % 97)).collect();
        let whole = Moments::of(values.iter().copied());
        let merged =
            values.chunks(64).map(|chunk| Moments::of(chunk.iter().copied())).fold(Moments::default(), Moments::merge);
        assert_eq!((whole.count, whole.min, whole.max), (merged.count, merged.min, merged.max));
        assert!((whole.mean - merged.mean).abs() < 1e-8 && (whole.squares / merged.squares - 1.0).abs() < 1e-9);
        assert!(Moments::default().deviation().is_nan());
        assert_eq!(Moments::of([0.1; 7].into_iter()).deviation(), 0.0);
    }

    #[test]
    fn quantiles_are_numpys() {
        let found = Distribution::of(vec![4.0, f64::NAN, 1.0, 2.0, 3.0, f64::INFINITY]).unwrap();
        assert_eq!((found.count, found.mean, found.min, found.max), (4, 2.5, 1.0, 4.0));
        assert_eq!(found.quantiles, [1.15, 1.75, 2.5, 3.25, 3.8499999999999996]);
        assert_eq!(Distribution::of(vec![f64::NAN]), None);
        let equal = Distribution::of(vec![7.0; 3]).unwrap();
        assert_eq!((equal.histogram.counts[0], equal.distinct, found.distinct), (3, 1, 4));
    }

    #[test]
    fn histograms_hold_both_ends() {
        let found = Histogram::of([0.0, 63.9, 64.0, 32.0].into_iter(), 0.0, 64.0).counts;
        assert_eq!((found[0], found[32], found[63], found.iter().sum::<u64>()), (1, 1, 2, 4));
    }
}
