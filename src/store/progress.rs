//! Where a run stands, as its checkpoints tell it.

use crate::input::Input;

/// Sums over the steps of the epoch under way.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EpochSums {
    /// Σ loss·samples.
    pub loss: f64,
    /// Right answers.
    pub correct: f64,
    /// Of the gradients' noise: see `train::Noise`.
    pub noise_spread: f64,
    /// Likewise.
    pub noise_signal: f64,
}

impl EpochSums {
    pub(super) const NAMES: [&str; 4] = ["epoch_loss", "epoch_correct", "epoch_noise_spread", "epoch_noise_signal"];

    /// In the order of the fields.
    pub fn to_array(self) -> [f64; 4] {
        [self.loss, self.correct, self.noise_spread, self.noise_signal]
    }
}

impl From<[f64; 4]> for EpochSums {
    fn from([loss, correct, noise_spread, noise_signal]: [f64; 4]) -> Self {
        Self { loss, correct, noise_spread, noise_signal }
    }
}

/// The epoch with the lowest loss on the validation part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// That loss; infinite where there is none yet.
    pub loss: f64,
    /// Counted from 1.
    pub epoch: u64,
}

impl Default for Best {
    fn default() -> Self {
        Self { loss: f64::INFINITY, epoch: 0 }
    }
}

/// Where the run stands: the fields of a [`Checkpoint`](super::Checkpoint).
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Optimizer steps done over the whole run.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Samples done in the current epoch.
    pub sample: u64,
    /// Of the current epoch.
    pub sums: EpochSums,
    /// So far.
    pub best: Best,
    /// The job's seed.
    pub seed: u64,
    /// Ranks of the run.
    pub ranks: u64,
    /// The resolved job as TOML.
    pub config: &'a str,
    /// What products are multiplied in, "f32" or "bf16".
    pub products: &'a str,
    /// What the network's input is.
    pub input: &'a Input,
}

impl Progress<'_> {
    pub(super) fn counters(&self) -> [(&'static str, u64); 6] {
        [
            ("best_epoch", self.best.epoch),
            ("step", self.step),
            ("epoch", self.epoch),
            ("sample", self.sample),
            ("seed", self.seed),
            ("ranks", self.ranks),
        ]
    }

    pub(super) fn sums(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [("best_loss", self.best.loss)].into_iter().chain(EpochSums::NAMES.into_iter().zip(self.sums.to_array()))
    }
}
