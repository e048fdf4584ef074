//! What bytes mean: files of samples as a [`Table`] of named columns. A format knows nothing of training, believes no
//! length that it reads, and names file and place in every error.

mod bounded;
pub(super) mod cifar;
pub(super) mod csv;
pub(super) mod csv_table;
pub(super) mod file;
pub(super) mod files;
pub(super) mod image;
pub(super) mod npy;
mod npy_text;
pub(super) mod parquet;
pub(super) mod pickle;
pub(super) mod raw;
pub(super) mod tfrecord;
mod thrift;

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

/// An array of at least one dimension in a file, of which rows are read piece by piece in bounded memory.
pub(super) trait RowStream {
    /// Rows first.
    fn shape(&self) -> &[usize];

    /// So many further rows, or as many as are left.
    ///
    /// # Errors
    /// A file that cannot be read, or is damaged.
    fn next(&mut self, rows: usize) -> Result<Array>;
}

/// An array in memory, cut into pieces.
pub(super) struct Cut {
    array: Array,
    at: usize,
}

impl Cut {
    /// From its first row on.
    pub fn new(array: Array) -> Self {
        Self { array, at: 0 }
    }
}

impl RowStream for Cut {
    fn shape(&self) -> &[usize] {
        &self.array.shape
    }

    fn next(&mut self, rows: usize) -> Result<Array> {
        let mut shape = self.array.shape.clone();
        let (first, Some(count)) = (self.at, shape.first_mut()) else { return Ok(self.array.clone()) };
        *count = rows.min(*count - first);
        self.at += *count;
        let row = shape[1..].iter().product::<usize>();
        let range = first * row..self.at * row;
        let values = match &self.array.values {
            Values::U8(values) => Values::U8(values[range].to_vec()),
            Values::F32(values) => Values::F32(values[range].to_vec()),
            Values::F64(values) => Values::F64(values[range].to_vec()),
            Values::I64(values) => Values::I64(values[range].to_vec()),
        };
        Ok(Array { shape, values })
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

#[cfg(test)]
mod tests {
    use super::csv_table::{CsvTables, Wanted};
    use super::parquet::ParquetTables;
    use super::raw::{Dtype, Form};
    use super::tfrecord::{Declaration, Declared, RecordTables};
    use super::*;
    use std::path::PathBuf;

    /// Every cell of every column as text.
    fn cells(table: &Table) -> Vec<Vec<String>> {
        fn some<T: std::fmt::Debug>(values: &[T], row: usize, rows: usize) -> String {
            let width = values.len() / rows;
            format!("{:?}", &values[row * width..][..width])
        }
        let cell = |cells: &Cells, row: usize| match cells {
            Cells::Numbers(values) => format!("{:?}", values[row]),
            Cells::Texts(texts) => format!("{:?}", texts.get(row)),
            Cells::Arrays(array) => match &array.values {
                Values::U8(values) => some(values, row, table.rows),
                Values::F32(values) => some(values, row, table.rows),
                Values::F64(values) => some(values, row, table.rows),
                Values::I64(values) => some(values, row, table.rows),
            },
        };
        table.columns.iter().map(|column| (0..table.rows).map(|row| cell(&column.cells, row)).collect()).collect()
    }

    #[test]
    fn pieces_of_any_length_are_the_whole() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for (file, rows) in [0..5, 5..5, 5..16].into_iter().enumerate() {
            let path = folder.path().join(format!("{file}.csv"));
            let row = |i: usize| format!("{i},{},{}\n", ["red", "", "blue"][i % 3], if i == 7 { "" } else { "1.5" });
            std::fs::write(&path, "n,t,h\n".to_owned() + &rows.map(row).collect::<String>()).unwrap();
            files.push(path);
        }
        let here = |name: &str| PathBuf::from(format!("{}/tests/formats/{name}", env!("CARGO_MANIFEST_DIR")));
        let image = Declaration::Bytes(Form::Raw(Dtype::Uint8, vec![28, 28, 1]));
        let declared = [("label", Declaration::Integers(Vec::new())), ("image_raw", image)];
        let declared = declared.map(|(name, kind)| Declared { name: name.into(), kind });
        let records = ["digits/train.tfrecord", "digits/test.tfrecord"].map(here);
        let parts: Vec<PathBuf> = (0..5).map(|part| here(&format!("table/part-{part}.parquet"))).collect();
        type Opened = Box<dyn Fn() -> Result<Box<dyn Tables>>>;
        let csv = move || {
            let wanted = Wanted { delimiter: b',', others: true, ..Wanted::default() };
            Ok(Box::new(CsvTables::open(files.clone(), wanted)?) as Box<dyn Tables>)
        };
        let parquet = move || Ok(Box::new(ParquetTables::new(parts.clone(), Default::default())) as Box<dyn Tables>);
        let records = move || Ok(Box::new(RecordTables::new(records.to_vec(), declared.to_vec())?) as Box<dyn Tables>);
        let opened: [(Opened, usize, usize); 3] =
            [(Box::new(csv), 3, 16), (Box::new(parquet), 16, 40), (Box::new(records), 2, 40)];
        for (open, columns, rows) in opened {
            let whole = open()?.whole()?;
            assert_eq!((whole.columns.len(), whole.rows), (columns, rows), "{:?}", whole.names());
            let whole = cells(&whole);
            for length in [1, 3, 7, rows, rows + 1] {
                let mut tables = open()?;
                let mut all = vec![Vec::new(); columns];
                while let Some(piece) = tables.next(length)? {
                    assert!(piece.rows <= length, "{} rows where {length} were asked for", piece.rows);
                    all.iter_mut().zip(cells(&piece)).for_each(|(all, more)| all.extend(more));
                }
                assert!(all == whole, "pieces of {length} rows of {columns} columns");
                assert!(tables.next(length)?.is_none());
            }
        }
        Ok(())
    }
}
