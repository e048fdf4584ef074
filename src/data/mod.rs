//! Data sets in memory and the batches cut from them. One file a source; knows no rank but through [`shard`].

use crate::config::DataConfig;
use crate::error::Result;
use crate::shape::Shape;

/// The training or the test part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Samples to learn from.
    Train,
    /// Samples to measure on.
    Test,
}

/// What the targets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// One class a sample, by name.
    Classes(Vec<String>),
    /// `n` real values a sample.
    Values(usize),
}

/// The targets of a micro-batch: the field of the data set's task is filled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Targets {
    /// (M) class indices.
    pub classes: Vec<u32>,
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

/// From a value the network gives to the data's own unit: `value * scale + offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unit {
    /// Factor.
    pub scale: f64,
    /// Summand.
    pub offset: f64,
}

/// Marker until the real one lands.
pub struct Dataset;

impl Dataset {
    /// Reads the data that `config` names.
    pub fn open(_config: &DataConfig, _seed: u64) -> Result<Dataset> {
        unreachable!()
    }
    /// The resolved table.
    pub fn resolve(_config: &DataConfig) -> Result<toml::Table> {
        unreachable!()
    }
    /// One sample's shape.
    pub fn input(&self) -> Shape {
        unreachable!()
    }
}
