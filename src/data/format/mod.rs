//! What bytes mean: files of samples as a [`Table`] of named columns. A format knows nothing of training, believes no
//! length that it reads, and names file and place in every error.

pub(super) mod cifar;
pub(super) mod csv;
pub(super) mod file;
pub(super) mod files;
pub(super) mod image;
pub(super) mod parquet;
pub(super) mod pickle;
pub(super) mod raw;
pub(super) mod tfrecord;

use crate::data::format::file::no_room;
use crate::error::{Error, Result};
use crate::resource::memory;
use crate::store::table::{Array, Values};
use std::collections::HashMap;
use std::path::Path;

/// Rows of named columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Table {
    pub columns: Vec<Column>,
    pub rows: usize,
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub name: String,
    pub cells: Cells,
}

/// What a column holds, one for each row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cells {
    /// Numbers; NaN where there is none.
    Numbers(Vec<f64>),
    /// Texts.
    Texts(Texts),
    /// Arrays (rows, ...) of one shape.
    Arrays(Array),
}

/// Texts, each distinct one kept once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Texts {
    /// The distinct ones, as they came.
    pub names: Vec<String>,
    /// Of each row its index in `names`, or [`Texts::MISSING`].
    pub of: Vec<u32>,
    index: HashMap<String, u32>,
}

impl Texts {
    /// No text.
    pub const MISSING: u32 = u32::MAX;

    /// The text of a row.
    pub fn get(&self, row: usize) -> Option<&str> {
        self.names.get(self.of[row] as usize).map(String::as_str)
    }

    /// Appends a row.
    pub fn push(&mut self, text: Option<&str>, path: &Path) -> Result<()> {
        reserve(&mut self.of, 1, path)?;
        let index = match text {
            None => Self::MISSING,
            Some(text) => match self.index.get(text) {
                Some(&index) => index,
                None => {
                    reserve(&mut self.names, 1, path)?;
                    let index = self.names.len() as u32;
                    self.names.push(text.to_owned());
                    self.index.insert(text.to_owned(), index);
                    index
                }
            },
        };
        self.of.push(index);
        Ok(())
    }
}

impl Cells {
    /// Rows from `at` on, taken off.
    pub fn split_off(&mut self, at: usize) -> Cells {
        match self {
            Cells::Numbers(values) => Cells::Numbers(values.split_off(at)),
            Cells::Texts(texts) => {
                let of = texts.of.split_off(at);
                Cells::Texts(Texts { of, ..texts.clone() })
            }
            Cells::Arrays(array) => {
                let elements = at * array.shape[1..].iter().product::<usize>();
                let values = match &mut array.values {
                    Values::U8(values) => Values::U8(values.split_off(elements)),
                    Values::F32(values) => Values::F32(values.split_off(elements)),
                    Values::F64(values) => Values::F64(values.split_off(elements)),
                    Values::I64(values) => Values::I64(values.split_off(elements)),
                };
                let mut shape = array.shape.clone();
                shape[0] -= at;
                array.shape[0] = at;
                Cells::Arrays(Array { shape, values })
            }
        }
    }
}

impl Table {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The names of the columns.
    pub fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// Rows from `at` on, taken off.
    pub fn split_off(&mut self, at: usize) -> Table {
        let off = |column: &mut Column| Column { name: column.name.clone(), cells: column.cells.split_off(at) };
        let columns = self.columns.iter_mut().map(off).collect();
        let rows = self.rows - at;
        self.rows = at;
        Table { columns, rows }
    }
}

/// Room for `more` elements, which is asked for before it is taken: a file may promise anything.
pub(super) fn reserve<T>(values: &mut Vec<T>, more: usize, path: &Path) -> Result<()> {
    memory::reserve(values, more).map_err(|e| no_room(path.display().to_string(), &e))
}

/// An error at a place in a file.
fn damaged(path: &Path, place: impl std::fmt::Display, what: impl Into<String>) -> Error {
    Error::data(format!("{}, {place}", path.display()), what, "the file is damaged, or of another kind; get it anew")
}
