//! The job: TOML text, overrides and defaults into a [`Job`] that is checked once and then trusted.

mod component;
pub mod data;
mod job;
mod lines;
mod overrides;

pub use component::{Component, nearest};
pub use data::{Augmentation, DataConfig, Normalize};
pub use job::{Batch, Distributed, Exchange, Job, Precision, Reduction, Train};
pub use overrides::Override;
