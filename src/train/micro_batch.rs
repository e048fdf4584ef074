//! How many samples a micro-batch has: the job's word, or a choice by the network, the same at any number of ranks.

use crate::config::{Batch, Job};
use crate::data::{Dataset, Part};
use crate::error::{Error, Result};
use crate::model::Model;

/// The fewest: below this the kernels' tiles are not full.
const FEWEST: usize = 8;
/// The fewest whose statistics batch norm may use, where the batch has as many.
const STATISTICS: usize = 16;
/// The largest share of a micro-batch's time that its work on weights may take, where ranks may want small ones.
const SHARE: f64 = 0.125;
/// The same where more than [`RANKS`] ranks have a micro-batch each all the same.
const SMALL_SHARE: f64 = 0.04;
/// More ranks than this are seldom.
const RANKS: usize = 32;
/// Weights that stay in cache from one micro-batch to the next, at most.
const CACHED: u64 = 1 << 22;
/// What a micro-batch does for each weight whatever its samples, in FLOPs of the products: the weights are read twice, their
/// gradients written and summed, and short products run slower. bench/results/2026-11-24-micro-batch.md has the fit.
const FLOPS_A_WEIGHT: [f64; 2] = [12.0, 24.0];

/// Samples of a micro-batch, and why so many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroBatch {
    /// At most the batch.
    pub samples: usize,
    /// Nothing where the job says it.
    pub reason: Option<String>,
}

/// What batch norm in a network takes its statistics of: values a channel of one sample, the fewest of all such layers.
#[derive(Debug, Clone, Copy, Default)]
struct Norms {
    of_micro_batch: Option<usize>,
    of_batch: Option<usize>,
}

impl Norms {
    fn of(model: &Model<f32>) -> Self {
        let fewest = |sync: bool| model.statistics().filter(|of| of.sync == sync).map(|of| of.values).min();
        Self { of_micro_batch: fewest(false), of_batch: fewest(true) }
    }

    /// Whether all statistics are of two values at least, in each step of an epoch of `samples`.
    fn sound(&self, samples: usize, batch: usize, micro: usize) -> bool {
        let batches = [batch.min(samples), samples % batch.min(samples)].into_iter().filter(|len| *len > 0);
        let pieces = |len: usize| [len.min(micro), len % micro].into_iter().filter(|len| *len > 0);
        batches.clone().all(|len| self.of_batch.is_none_or(|values| len * values > 1))
            && batches.flat_map(pieces).all(|len| self.of_micro_batch.is_none_or(|values| len * values > 1))
    }
}

/// The samples by which a batch is cut: ranks bring their own in weak scaling.
fn of_cut(job: &Job) -> usize {
    match job.train.batch() {
        Batch::Global(samples) | Batch::PerRank(samples) => samples,
    }
}

impl MicroBatch {
    /// The job's, or else chosen for its network on `data`.
    ///
    /// # Errors
    /// Whatever of the network does not fit.
    pub fn of(job: &Job, data: &Dataset) -> Result<Self> {
        if job.train.micro_batch.is_some() {
            return Ok(Self { samples: job.train.micro_batch(), reason: None });
        }
        let model = Model::<f32>::with_precision(job.train.precision, &job.layers, data.input(), 1)?;
        let (flops, weights) = model.work();
        Ok(choose(of_cut(job), data.len(Part::Train), flops, weights, Norms::of(&model)))
    }

    /// Refuses batch norm over single values, whose output would be constant.
    ///
    /// # Errors
    /// Names the key and a value that works.
    pub(super) fn check(&self, job: &Job, data: &Dataset, model: &Model<f32>, ranks: usize) -> Result<()> {
        let (samples, batch) = (data.len(Part::Train), job.train.global_batch(ranks));
        let norms = Norms::of(model);
        let sound = |batch: usize, micro: usize| norms.sound(samples, batch, micro.min(batch));
        if sound(batch, self.samples) {
            return Ok(());
        }
        // The nearest that is larger, then the nearest.
        let nearest = |from: usize, to: usize, good: &dyn Fn(usize) -> bool| {
            (from..=to).find(|n| good(*n)).or_else(|| (1..from).rev().find(|n| good(*n)))
        };
        let most = batch.min(samples);
        let mend = if let Some(micro) = nearest(self.samples, most, &|micro| sound(batch, micro)) {
            format!("set train.micro_batch = {micro}")
        } else if let Some(micro) =
            nearest(ranks, most, &|batch| sound(batch * ranks, batch * ranks)).filter(|_| ranks > 1)
        {
            format!("set train.batch_size = {0} and train.micro_batch = {0}", micro * ranks)
        } else if let Some(batch) = nearest(batch, samples, &|batch| sound(batch, self.samples.max(2))) {
            format!("set train.batch_size = {batch} and train.micro_batch = {}", self.samples.max(2).min(batch))
        } else {
            "give more training samples, or take batch norm out".to_owned()
        };
        let of = if norms.of_batch.is_some_and(|values| values == 1) && norms.of_micro_batch.is_none() {
            "batch"
        } else {
            "micro-batch"
        };
        let what = format!(
            "batch norm gets one value a channel in a {of} of one sample ({samples} training samples, batch {batch}, \
             micro-batch {}), so its output would be constant",
            self.samples
        );
        Err(Error::usage(format!("{}, train.micro_batch", job.file), what, mend))
    }
}

/// The job with its micro-batch written out.
///
/// # Errors
/// As for [`MicroBatch::of`].
pub fn settled(job: &Job, data: &Dataset) -> Result<Job> {
    let mut job = job.clone();
    job.train.micro_batch = Some(MicroBatch::of(&job, data)?.samples);
    Ok(job)
}

/// The smallest power of two whose work on `weights` is a small share of what it does for its samples, `flops` each.
fn choose(batch: usize, samples: usize, flops: u64, weights: u64, norms: Norms) -> MicroBatch {
    let each = FLOPS_A_WEIGHT[usize::from(weights > CACHED)];
    let share = |micro: usize| {
        let (fixed, own) = (each * weights as f64, flops.max(1) as f64 * micro as f64);
        fixed / (fixed + own)
    };
    let normalises = norms.of_micro_batch.is_some();
    let steady = |micro: usize| {
        let rest = batch % micro;
        !normalises || micro == batch || micro >= STATISTICS && (rest == 0 || rest >= STATISTICS)
    };
    let powers = (FEWEST.trailing_zeros()..usize::BITS).map(|power| 1 << power);
    let candidates = powers.take_while(|micro| *micro < batch).chain([batch]);
    let fitting: Vec<usize> =
        candidates.filter(|micro| steady(*micro) && norms.sound(samples, batch, *micro)).collect();
    let cheap = fitting.iter().position(|micro| share(*micro) <= SHARE);
    let mut rest = fitting.iter().copied().skip(cheap.unwrap_or(fitting.len()));
    let mut micro = rest.next().unwrap_or(batch);
    micro = rest.take_while(|next| batch / next >= RANKS && share(next / 2) > SMALL_SHARE).last().unwrap_or(micro);
    let percent = |micro: usize| format!("{:.0} %", 100.0 * share(micro));
    let smaller = micro / 2;
    let reason = if normalises && micro > FEWEST && share(smaller) <= SHARE {
        format!("batch norm wants statistics of at least {STATISTICS} samples")
    } else if micro <= FEWEST {
        format!("work on weights is {} of its time", percent(micro))
    } else {
        format!("work on weights is {} of its time, of half as many samples' {}", percent(micro), percent(smaller))
    };
    let whole = if micro == batch { "the whole batch; " } else { "" };
    MicroBatch { samples: micro, reason: Some(format!("{whole}{reason}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(batch: usize, flops: u64, weights: u64) -> usize {
        choose(batch, 1000, flops, weights, Norms::default()).samples
    }

    #[test]
    fn work_on_weights_stays_a_small_share() {
        // A perceptron of 1 M weights, of 50 M, and a convolution that uses each of 0.1 M weights at 256 pixels.
        assert_eq!([4, 16, 20, 128].map(|batch| chosen(batch, 6_000_000, 1_000_000)), [4, 16, 16, 16]);
        assert_eq!([16, 20, 64, 128].map(|batch| chosen(batch, 300_000_000, 50_000_000)), [16, 20, 32, 32]);
        assert_eq!([4, 16, 128].map(|batch| chosen(batch, 150_000_000, 100_000)), [4, 8, 8]);
        // Where there is work for many ranks all the same, speed counts for more.
        assert_eq!([512, 1024, 2048, 4096].map(|batch| chosen(batch, 6_000_000, 1_000_000)), [16, 32, 64, 64]);
        assert_eq!(chosen(100, 0, 0), 8);
    }

    #[test]
    fn statistics_are_of_sixteen_samples_at_least() {
        let norms = Norms { of_micro_batch: Some(1), of_batch: None };
        for (batch, expected) in [(1, 1), (8, 8), (16, 16), (20, 20), (32, 16), (60, 32), (100, 64), (128, 16)] {
            let choice = choose(batch, 6400, 1_000_000, 1, norms);
            assert_eq!(choice.samples, expected, "{batch}");
            let rest = batch % choice.samples;
            assert!(choice.samples >= batch.min(16) && (rest == 0 || rest >= 16));
        }
        // A last batch of 17 samples would leave one alone.
        assert_eq!(choose(64, 64 * 3 + 17, 1_000_000, 1, norms).samples, 32);
    }

    #[test]
    fn single_values_are_found_wherever_they_are() {
        let of = |of_micro_batch, of_batch| Norms { of_micro_batch, of_batch };
        let vector = of(Some(1), None);
        assert!(vector.sound(64, 16, 8) && vector.sound(64 + 2, 16, 8));
        assert!(!vector.sound(64, 16, 1) && !vector.sound(64, 17, 8) && !vector.sound(65, 16, 8));
        assert!(of(Some(4), None).sound(65, 16, 1));
        assert!(of(None, Some(1)).sound(64, 16, 1) && !of(None, Some(1)).sound(65, 16, 8));
        assert!(of(None, None).sound(1, 1, 1));
    }
}
