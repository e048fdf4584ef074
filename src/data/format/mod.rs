//! What bytes mean: files of samples as a [`Table`] of named columns. A format knows nothing of training, believes no
//! length that it reads, and names file and place in every error.

pub(super) mod cifar;
pub(super) mod csv;
pub(super) mod csv_table;
pub(super) mod file;
pub(super) mod files;
pub(super) mod image;
pub(super) mod npy;
pub(super) mod parquet;
pub(super) mod pickle;
pub(super) mod raw;
pub(super) mod tfrecord;

use crate::data::format::file::no_room;
use crate::error::{Error, Result};
use crate::resource::memory;
use crate::store::table::Array;
use std::collections::HashMap;
use std::path::Path;

/// Rows of named columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Table {
    pub columns: Vec<Column>,
    pub rows: usize,
}

/// Rows in one file or several, read piece by piece in bounded memory.
pub(super) trait Tables {
    /// About so many further rows; None at the end. The first one comes even without rows.
    ///
    /// # Errors
    /// A file that cannot be read, or is damaged.
    fn next(&mut self, rows: usize) -> Result<Option<Table>>;

    /// All of them.
    ///
    /// # Errors
    /// As of [`Tables::next`].
    fn whole(&mut self) -> Result<Table> {
        Ok(self.next(usize::MAX)?.unwrap_or_default())
    }
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
    /// Whether a row has a value.
    pub fn has(&self, row: usize) -> bool {
        match self {
            Cells::Numbers(values) => !values[row].is_nan(),
            Cells::Texts(texts) => texts.of[row] != Texts::MISSING,
            Cells::Arrays(_) => true,
        }
    }

    /// Takes out of `whole` the rows that have none.
    pub fn mark(&self, whole: &mut [bool]) {
        whole.iter_mut().enumerate().for_each(|(row, whole)| *whole &= self.has(row));
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
}

/// Room for `more` elements, which is asked for before it is taken: a file may promise anything.
pub(super) fn reserve<T>(values: &mut Vec<T>, more: usize, path: &Path) -> Result<()> {
    memory::reserve(values, more).map_err(|e| no_room(path.display().to_string(), &e))
}

/// An error at a place in a file.
fn damaged(path: &Path, place: impl std::fmt::Display, what: impl Into<String>) -> Error {
    Error::data(format!("{}, {place}", path.display()), what, "the file is damaged, or of another kind; get it anew")
}
