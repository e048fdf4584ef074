//! `hdf5`: the arrays of [`super::npz`] as datasets of one HDF5 file.

use super::Source;
use super::array::{self, ArrayFile, KEYS, Keys};
use super::array_inputs;
use crate::config::Normalize;
use crate::config::data::NormalizeMethod;
use crate::data::format::{Cut, RowStream};
use crate::error::Result;
use crate::store::rows::Rows;
use crate::store::table::{self, Array, Contents};
use std::path::{Path, PathBuf};

pub(super) const SOURCE: Source = Source {
    name: "hdf5",
    doc: "an HDF5 file with datasets as npz has arrays (groups by path: train/x)",
    keys: KEYS,
    open: |config, seed| {
        let path = super::path(config)?;
        array::open(config, seed, path, &mut Hdf5::open(path)?)
    },
    open_inputs: |trained, config, path| array_inputs::open(trained, config, path, &mut Hdf5::open(path)?),
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Named(NormalizeMethod::None),
};

struct Hdf5 {
    path: PathBuf,
    contents: Contents,
}

impl Hdf5 {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), contents: table::list(path)? })
    }
}

impl ArrayFile for Hdf5 {
    fn names(&self) -> &[String] {
        &self.contents.datasets
    }

    fn missing(&self, name: &str) -> (String, String) {
        let leads = |link: &String| {
            name.strip_prefix(link.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match self.contents.outside.iter().find(|link| leads(link)) {
            Some(link) => {
                let what = format!("\"{link}\" is a link to another file, which is not followed");
                (what, "copy what it leads to into this file, as h5copy does".into())
            }
            None => array::no_such(name, self.names()),
        }
    }

    fn classes(&self) -> &[String] {
        &self.contents.classes
    }

    fn rows(&mut self, name: &str) -> Result<Option<Rows>> {
        Rows::open(&self.path, name)
    }

    fn read(&mut self, name: &str) -> Result<Array> {
        table::read(&self.path, name)
    }

    fn length(&mut self, name: &str) -> Option<usize> {
        table::length(&self.path, name)
    }

    fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        table::texts(&self.path, name)
    }

    fn stream(&mut self, name: &str) -> Result<Box<dyn RowStream>> {
        Ok(match Rows::open(&self.path, name)? {
            Some(rows) => Box::new(Pieces { rows, at: 0 }),
            // Of one dimension, such as targets.
            None => Box::new(Cut::new(self.read(name)?)),
        })
    }
}

/// Rows in order.
struct Pieces {
    rows: Rows,
    at: usize,
}

impl RowStream for Pieces {
    fn shape(&self) -> &[usize] {
        &self.rows.shape
    }

    fn next(&mut self, rows: usize) -> Result<Array> {
        let first = self.at;
        self.at += rows.min(self.rows.shape[0] - first);
        self.rows.array(first..self.at)
    }
}
