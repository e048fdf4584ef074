//! Means and deviations over repeats, and what they say of scaling.

use super::measure::{Measurement, Split};
use super::statistics::Spread;
use crate::train::terminal::thousands;
use serde::Serialize;

/// A mean over repeats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mean {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (n − 1); None for a single repeat.
    pub deviation: Option<f64>,
}

impl Mean {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
        Self { mean, deviation: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) }
    }

    /// Of `self / other`, errors taken to be independent.
    fn over(self, other: Mean) -> Mean {
        let mean = self.mean / other.mean;
        let relative = |m: Mean| m.deviation.map(|deviation| deviation / m.mean);
        let deviation = relative(self).zip(relative(other)).map(|(a, b)| mean.abs() * a.hypot(b));
        Mean { mean, deviation }
    }

    fn scaled(self, factor: f64) -> Mean {
        Mean { mean: self.mean * factor, deviation: self.deviation.map(|deviation| deviation * factor) }
    }
}

/// All runs on one number of ranks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// How many ranks.
    pub ranks: usize,
    /// How many runs.
    pub repeats: usize,
    /// On how many hosts.
    pub hosts: usize,
    /// More ranks than cores: what follows says nothing about scaling.
    pub oversubscribed: bool,
    /// Training samples of a run.
    pub samples: f64,
    /// Optimizer steps of a run.
    pub steps: usize,
    /// Seconds of training.
    pub seconds: Mean,
    /// With evaluation and checkpoints.
    pub total_seconds: Mean,
    /// Throughput over all ranks.
    pub samples_per_second: Mean,
    /// Throughput against the fewest ranks'. Of an oversubscribed row it is a ratio of times and no speedup.
    pub ratio: Mean,
    /// `ratio`, where no core is shared, here and on the fewest ranks.
    pub speedup: Option<Mean>,
    /// Speedup over (ranks / fewest ranks).
    pub efficiency: Option<Mean>,
    /// The serial share of the work that would explain the speedup: Karp and Flatt, "Measuring parallel processor
    /// performance", CACM 33(5), 1990; in weak scaling Gustafson's, "Reevaluating Amdahl's law", CACM 31(5), 1988.
    pub serial_fraction: Option<f64>,
    /// Final figures: `train_loss`, `test_accuracy`, `test_rmse`, ...
    #[serde(serialize_with = "by_name")]
    pub figures: Vec<(String, Mean)>,
    /// Where the seconds of training went.
    pub split: Split,
}

impl Row {
    /// A final figure.
    pub fn figure(&self, name: &str) -> Option<Mean> {
        self.figures.iter().find(|(n, _)| n == name).map(|(_, mean)| *mean)
    }
}

fn by_name<S: serde::Serializer>(figures: &[(String, Mean)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|(name, mean)| (name, mean)))
}

/// Karp and Flatt's serial fraction of `speedup` on `p` times the ranks.
pub fn karp_flatt(speedup: f64, p: f64) -> f64 {
    (1.0 / speedup - 1.0 / p) / (1.0 - 1.0 / p)
}

/// Gustafson's serial fraction of a scaled `speedup` on `p` times the ranks and work.
pub fn gustafson(speedup: f64, p: f64) -> f64 {
    (p - speedup) / (p - 1.0)
}

/// One row for each number of ranks that has a run, fewest first.
pub fn rows(measurements: &[Measurement], weak: bool) -> Vec<Row> {
    let mut counts: Vec<usize> = measurements.iter().map(|m| m.ranks).collect();
    counts.sort_unstable();
    counts.dedup();
    let mut rows: Vec<Row> = Vec::new();
    for ranks in counts {
        let runs: Vec<&Measurement> = measurements.iter().filter(|m| m.ranks == ranks).collect();
        let row = row(&runs, rows.first(), weak);
        rows.push(row);
    }
    rows
}

/// How many ranks are useful, by the gradient noise scale (McCandlish et al., 2018, "An Empirical Model of Large-Batch
/// Training"): a batch up to about that size needs fewer steps for more samples, so ranks can share it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Noise {
    /// Samples, the median over runs of their last epochs; None (in JSON null) where noise hid the gradient: far above the batch.
    pub scale: Option<f64>,
    /// Micro-batches of it, one a rank.
    pub useful_ranks: Option<usize>,
    /// Micro-batches of the job's batch.
    pub ranks_of_batch: usize,
    /// The same as a sentence.
    pub advice: String,
}

impl Noise {
    /// From the runs that measured it; None where none did.
    pub fn of(measurements: &[Measurement], batch: usize, micro_batch: usize) -> Option<Self> {
        let scales: Vec<f64> = measurements.iter().filter_map(|m| m.noise_scale).collect();
        if scales.is_empty() {
            return None;
        }
        let scale = Some(Spread::of(scales).median).filter(|scale| scale.is_finite());
        let useful_ranks = scale.map(|scale| ((scale / micro_batch as f64).round() as usize).max(1));
        let ranks_of_batch = batch.div_ceil(micro_batch);
        let samples = thousands(scale.unwrap_or_default().round() as u64);
        let advice = match useful_ranks {
            None => format!(
                "not to be measured, far above the batch of {batch}: its {ranks_of_batch} rank(s) are useful, and a larger \
                 batch for more may need fewer steps"
            ),
            Some(useful) if useful > ranks_of_batch => format!(
                "{samples} samples: up to about {useful} ranks are useful, {ranks_of_batch} with this batch of {batch}; a \
                 larger one, up to {samples}, needs fewer steps"
            ),
            Some(useful) => format!(
                "{samples} samples: up to about {useful} rank(s) are useful; a batch of {batch} for {ranks_of_batch} is \
                 larger than that, so more ranks finish a step sooner, but hardly reduce the steps that training needs"
            ),
        };
        Some(Self { scale, useful_ranks, ranks_of_batch, advice })
    }
}

fn row(runs: &[&Measurement], base: Option<&Row>, weak: bool) -> Row {
    let mean = |value: fn(&Measurement) -> f64| Mean::of(&runs.iter().map(|run| value(run)).collect::<Vec<_>>());
    let (ranks, seconds, samples) = (runs[0].ranks, mean(|run| run.seconds), mean(|run| run.samples).mean);
    // Of means, so that with the same samples it is the ratio of the mean times.
    let samples_per_second = Mean { mean: samples, deviation: seconds.deviation.map(|_| 0.0) }.over(seconds);
    let oversubscribed = runs.iter().any(|run| run.ranks_per_core > 1.0);
    let itself = Mean { mean: 1.0, deviation: seconds.deviation.map(|_| 0.0) };
    let ratio = base.map_or(itself, |base| samples_per_second.over(base.samples_per_second));
    let p = ranks as f64 / base.map_or(ranks, |base| base.ranks) as f64;
    let speedup = (!oversubscribed && !base.is_some_and(|base| base.oversubscribed)).then_some(ratio);
    let fraction = if weak { gustafson } else { karp_flatt };
    let figures = runs[0].figures.iter().map(|(name, _)| {
        let of = |run: &&Measurement| run.figures.iter().find(|(n, _)| n == name).map_or(f64::NAN, |(_, v)| *v);
        (name.clone(), Mean::of(&runs.iter().map(of).collect::<Vec<_>>()))
    });
    Row {
        ranks,
        repeats: runs.len(),
        hosts: runs[0].hosts,
        oversubscribed,
        samples,
        steps: runs[0].steps,
        seconds,
        total_seconds: mean(|run| run.total_seconds),
        samples_per_second,
        ratio,
        speedup,
        efficiency: speedup.map(|speedup| speedup.scaled(1.0 / p)),
        serial_fraction: speedup.filter(|_| p > 1.0).map(|speedup| fraction(speedup.mean, p)),
        figures: figures.collect(),
        split: Split::mean(&runs.iter().map(|run| run.split).collect::<Vec<_>>()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run of 1000 samples.
    pub fn measurement(ranks: usize, repeat: usize, seconds: f64, ranks_per_core: f64) -> Measurement {
        Measurement {
            ranks,
            repeat,
            seconds,
            total_seconds: seconds + 1.0,
            samples: 1000.0,
            steps: 10,
            figures: vec![("train_loss".into(), 0.5), ("test_accuracy".into(), 0.75 + 0.01 * repeat as f64)],
            noise_scale: None,
            split: Split { compute: 0.8 * seconds, communication: 0.2 * seconds, ..Split::default() },
            ranks_per_core,
            hosts: 1,
            machine: "a CPU, avx2".into(),
        }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn means_and_deviations() {
        let mean = Mean::of(&[1.0, 2.0, 3.0, 4.0]);
        close(mean.mean, 2.5);
        close(mean.deviation.unwrap(), (5.0f64 / 3.0).sqrt());
        assert_eq!(Mean::of(&[2.0]), Mean { mean: 2.0, deviation: None });
        let ratio = Mean { mean: 8.0, deviation: Some(0.8) }.over(Mean { mean: 4.0, deviation: Some(0.0) });
        close(ratio.mean, 2.0);
        close(ratio.deviation.unwrap(), 0.2);
    }

    #[test]
    fn serial_fractions_are_those_of_their_laws() {
        // Amdahl's law with a tenth serial, on 4: 1 / (0.1 + 0.9 / 4).
        close(karp_flatt(1.0 / (0.1 + 0.9 / 4.0), 4.0), 0.1);
        close(karp_flatt(4.0, 4.0), 0.0);
        // Gustafson's: 4 - 0.1 * 3.
        close(gustafson(3.7, 4.0), 0.1);
    }

    #[test]
    fn speedup_is_relative_to_the_fewest_ranks() {
        let runs = [(2, 1, 10.0), (2, 2, 12.0), (4, 1, 6.0), (4, 2, 5.0)];
        let runs: Vec<_> = runs.map(|(ranks, repeat, seconds)| measurement(ranks, repeat, seconds, 0.5)).to_vec();
        let rows = rows(&runs, false);
        assert_eq!(rows.iter().map(|row| (row.ranks, row.repeats)).collect::<Vec<_>>(), [(2, 2), (4, 2)]);
        close(rows[0].speedup.unwrap().mean, 1.0);
        close(rows[1].speedup.unwrap().mean, 2.0);
        close(rows[1].efficiency.unwrap().mean, 1.0);
        close(rows[1].serial_fraction.unwrap(), 0.0);
        assert_eq!(rows[0].serial_fraction, None);
        close(rows[1].figure("test_accuracy").unwrap().mean, 0.765);
        assert!(rows[1].speedup.unwrap().deviation.unwrap() > 0.0);
    }

    #[test]
    fn the_noise_scale_says_how_many_ranks_are_useful() {
        let runs = |scales: &[f64]| -> Vec<Measurement> {
            let run = |scale: &f64| Measurement { noise_scale: Some(*scale), ..measurement(1, 1, 1.0, 0.5) };
            scales.iter().map(run).collect()
        };
        // 1,600 samples are 50 micro-batches of 32; the batch of 128 is 4.
        let noise = Noise::of(&runs(&[100.0, 1600.0, f64::INFINITY]), 128, 32).unwrap();
        assert_eq!((noise.scale, noise.useful_ranks, noise.ranks_of_batch), (Some(1600.0), Some(50), 4));
        assert!(noise.advice.contains("about 50 ranks") && noise.advice.contains("up to 1,600"), "{}", noise.advice);
        let few = Noise::of(&runs(&[40.0]), 128, 32).unwrap();
        assert!(few.useful_ranks == Some(1) && few.advice.contains("hardly"), "{}", few.advice);
        let hidden = Noise::of(&runs(&[f64::INFINITY]), 128, 32).unwrap();
        assert!(hidden.scale.is_none() && hidden.advice.contains("far above"), "{}", hidden.advice);
        assert!(serde_json::to_string(&hidden).unwrap().contains("\"scale\":null"));
        assert_eq!(Noise::of(&[measurement(1, 1, 1.0, 0.5)], 128, 32), None);
    }

    #[test]
    fn shared_cores_give_no_speedup() {
        let runs = [measurement(1, 1, 10.0, 0.5), measurement(4, 1, 6.0, 2.0)];
        let above = rows(&runs, false);
        assert!(!above[0].oversubscribed && above[1].oversubscribed);
        assert_eq!((above[1].speedup, above[1].efficiency, above[1].serial_fraction), (None, None, None));
        close(above[1].ratio.mean, 10.0 / 6.0);
        // Nor does what is measured against them.
        let runs = [measurement(4, 1, 10.0, 2.0), measurement(8, 1, 6.0, 1.0)];
        assert_eq!(rows(&runs, false)[1].speedup, None);
    }
}
