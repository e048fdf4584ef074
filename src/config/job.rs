//! The job.
use super::{Component, DataConfig};

/// A whole job, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Names the results folder.
    pub name: String,
    /// Keys every random number.
    pub seed: u64,
    /// What to train on.
    pub data: DataConfig,
    /// The layers in order.
    pub layers: Vec<Component>,
    /// The loss.
    pub loss: Component,
    /// The optimizer.
    pub optimizer: Component,
    /// The learning-rate schedule.
    pub schedule: Component,
    /// How long and how.
    pub train: Train,
    /// How ranks work together.
    pub distributed: Distributed,
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Train {}

/// `[distributed]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Distributed {}
