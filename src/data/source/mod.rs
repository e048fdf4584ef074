//! The registry of sources: which format and which transforms a name in a job stands for. A new source is one file here and one
//! line in [`registry`].

mod array;
mod array_inputs;
mod array_series;
mod cifar10;
mod cifar100;
mod csv;
mod hdf5;
mod images;
mod mnist;
mod npz;
mod parquet;
mod stocks;
mod synthetic;
mod table;
mod tfrecord;

use super::Dataset;
use crate::config::{Component, DataConfig, Normalize};
use crate::error::Result;
use crate::input::Input;
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

/// See [`Source`].
type Pieces = Box<dyn FnMut(usize) -> Result<Option<Dataset>>>;

/// One entry of the [`registry`].
pub struct Source {
    /// `data.source` in a job.
    pub name: &'static str,
    /// What it reads, in a line.
    pub doc: &'static str,
    /// Its own keys, each with a line on it and its default.
    pub keys: &'static [(&'static str, &'static str)],
    /// Reads the data; the seed is for made data.
    pub(super) open: fn(&DataConfig, u64) -> Result<Dataset>,
    /// Reads a file of inputs only: what hands out about so many rows of it, and nothing at its end.
    pub(super) open_inputs: fn(&Input, &DataConfig, &Path) -> Result<Pieces>,
    /// Its own keys with defaults written out.
    pub(super) resolve: fn(&Component) -> Result<Component>,
    /// What its users expect where the job does not say.
    pub(super) normalize: fn(&DataConfig) -> Normalize,
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
pub(super) fn of(config: &DataConfig) -> Result<&'static Source> {
    registry()
        .iter()
        .find(|source| source.name == config.source.kind)
        .ok_or_else(|| config.source.unknown_kind("source", registry().iter().map(|source| source.name)))
}

/// The job's choice of normalisation, or the source's default.
pub(super) fn normalization(config: &DataConfig) -> Result<Normalize> {
    let default = of(config)?.normalize;
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
