//! The job: TOML text, overrides and defaults into a [`Job`] that is checked once and then trusted.

pub mod address;
mod changes;
mod component;
pub mod data;
mod distributed;
mod job;
mod lines;
mod overrides;

pub use crate::kernel::Precision;
pub use changes::{Change, Meaning, changes};
pub use component::{Component, nearest};
pub use data::{Augmentation, DataConfig, Normalize, PaddingMode, Resident, Sampling, Shuffle, Span};
pub use distributed::{Distributed, Exchange, Reduction, Wire};
pub use job::{Batch, Job, Train};
pub use overrides::{Override, SWITCHES};
