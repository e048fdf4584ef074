//! Data sets and the batches cut from them; knows no rank but through [`shard`](crate::shard).
//!
//! Data walk through these rooms once: [`storage`] (where bytes are), `format` (what bytes mean), `transform` (what is made of
//! that, whatever the format), `sample` (samples by number). `source` is the registry: which of these a name in a job stands
//! for. What comes out is a [`Dataset`], which fills micro-batches by sample number.

mod dataset;
mod format;
mod inputs;
pub mod loader;
mod raw;
mod sample;
mod sampling;
mod source;
pub mod storage;
mod transform;

pub use crate::input::{Input, Unit};
pub use dataset::{Dataset, Kept};
pub use inputs::{Inputs, open_inputs};
pub use loader::{Batch, Loader, Picked};
pub use raw::Raw;
pub use sample::kept::Bulk;
pub use source::{Source, registry};
pub use transform::window::{Series, Times};

/// The training or the test part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Samples to learn from.
    Train,
    /// Samples to measure on.
    Test,
    /// Samples of the training part that are kept back: the best epoch goes by them.
    Validation,
}

/// What the targets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// One class a sample, by name.
    Classes(Vec<String>),
    /// `n` real values a sample.
    Values(usize),
}

impl Task {
    /// That of a trained network.
    pub fn of(input: &Input) -> Self {
        match input.classes.is_empty() {
            false => Task::Classes(input.classes.clone()),
            true => Task::Values(input.units.len().max(input.targets.len()).max(1)),
        }
    }
}

/// The targets of a micro-batch: the field of the data set's task is filled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Targets {
    /// (M) class indices.
    pub classes: Vec<u32>,
    /// Where samples are mixed with others: what is left of themselves, and the others' (M) class indices.
    pub mixed: Option<f32>,
    /// See there; else empty.
    pub others: Vec<u32>,
    /// (M, n) values, normalised as the network should give them.
    pub values: Vec<f32>,
}

/// What keys the random changes of a training batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AugmentKey {
    /// The job's seed.
    pub seed: u64,
    /// The epoch.
    pub epoch: u64,
}
