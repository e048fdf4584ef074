//! `hdf5`: the arrays of [`super::npz`] as datasets of one HDF5 file.

use super::array::{self, ArrayFile, KEYS, Keys};
use super::{Dataset, Input, Source};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::error::Result;
use crate::store::table::{self, Array};
use std::path::{Path, PathBuf};

pub(super) const SOURCE: Source = Source {
    name: "hdf5",
    doc: "an HDF5 file with datasets as npz has arrays (groups by path: train/x)",
    keys: KEYS,
    open: |config, seed| {
        let path = super::path(config)?;
        array::open(config, seed, path, &mut Hdf5::open(path)?)
    },
    open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Named(NormalizeMethod::None),
};

fn open_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Result<Dataset> {
    array::open_inputs(trained, config, path, &mut Hdf5::open(path)?)
}

struct Hdf5 {
    path: PathBuf,
    names: Vec<String>,
}

impl Hdf5 {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), names: table::list(path)? })
    }
}

impl ArrayFile for Hdf5 {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn read(&mut self, name: &str) -> Result<Array> {
        table::read(&self.path, name)
    }
}
