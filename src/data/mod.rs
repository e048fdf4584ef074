//! Data sets in memory and the batches cut from them. One file a source; knows no rank but through [`shard`].
//!
//! A source reads its files into a [`Dataset`], which fills micro-batches by sample number. A new source is one file
//! here and one line in [`registry`].

mod array;
mod augment;
mod cifar10;
mod cifar100;
mod columns;
mod csv;
mod dataset;
mod delimited;
mod file;
mod float;
mod format;
mod hdf5;
mod images;
mod label;
mod mnist;
mod normalize;
mod npz;
mod parquet;
mod pixel;
mod raw;
mod samples;
mod sampling;
mod selection;
mod stocks;
pub mod storage;
mod synthetic;
mod tfrecord;
mod transform;
mod window;

pub use crate::input::{Input, Unit};
pub use dataset::{Dataset, Kept};
pub use raw::Raw;
pub use samples::Samples;
pub use window::Series;

use crate::config::{Component, DataConfig, Normalize};
use crate::error::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

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
            true => Task::Values(input.units.len().max(1)),
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

/// One entry of the [`registry`].
pub struct Source {
    /// `data.source` in a job.
    pub name: &'static str,
    /// What it reads, in a line.
    pub doc: &'static str,
    /// Its own keys, each with a line on it and its default.
    pub keys: &'static [(&'static str, &'static str)],
    /// Reads the data; the seed is for made data.
    open: fn(&DataConfig, u64) -> Result<Dataset>,
    /// Reads a file of inputs only.
    open_inputs: fn(&Input, &DataConfig, &Path) -> Result<Dataset>,
    /// Its own keys with defaults written out.
    resolve: fn(&Component) -> Result<Component>,
    /// What its users expect where the job does not say.
    normalize: fn(&DataConfig) -> Normalize,
}

/// Every source there is, in the order of the documentation.
pub fn registry() -> &'static [Source] {
    const SOURCES: &[Source] = &[
        mnist::SOURCE,
        cifar10::SOURCE,
        cifar100::SOURCE,
        images::SOURCE,
        stocks::SOURCE,
        self::csv::SOURCE,
        npz::SOURCE,
        self::hdf5::SOURCE,
        self::parquet::SOURCE,
        tfrecord::SOURCE,
        synthetic::SOURCE,
    ];
    SOURCES
}

/// The registry's entry for a job's source, or an error that names the nearest.
fn source(config: &DataConfig) -> Result<&'static Source> {
    registry()
        .iter()
        .find(|source| source.name == config.source.kind)
        .ok_or_else(|| config.source.unknown_kind("source", registry().iter().map(|source| source.name)))
}

/// Only inputs, for predictions: reads `file` in the format of the job's source (a CSV series for stocks, an NPZ file
/// with `x`, an IDX file of images, a CIFAR-10 `.bin`, a CSV of features) and normalises it as the job does, with what was
/// fitted on the training part. The test part of the result holds all samples. Targets that the file lacks
/// are NaN, or left out for classes.
pub fn open_inputs(input: &Input, config: &DataConfig, file: &Path) -> Result<Dataset> {
    let inputs = (source(config)?.open_inputs)(input, config, file)?;
    if inputs.rows() == 0 {
        let what = ["there is no sample in it"].into_iter().chain(inputs.notes.iter().map(String::as_str));
        let what: Vec<&str> = what.collect();
        return Err(Error::data(file.display().to_string(), what.join("; "), "give a file with samples"));
    }
    inputs.require_finite()?;
    Ok(inputs)
}

/// The job's choice of normalisation, or the source's default.
fn normalization(config: &DataConfig) -> Result<Normalize> {
    let default = source(config)?.normalize;
    Ok(config.normalize.clone().unwrap_or_else(|| default(config)))
}

/// A source's keys as its struct `K`, with defaults.
fn resolve_keys<K: DeserializeOwned + Serialize>(component: &Component) -> Result<Component> {
    Ok(component.resolve::<K>()?.1)
}

/// The job's `path`, for sources that need one.
fn path(config: &DataConfig) -> Result<&Path> {
    config.path.as_deref().filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| {
        let what = format!("the source \"{}\" reads files and no path is given", config.source.kind);
        config.source.error("path", what, "set data.path to the folder or file")
    })
}
