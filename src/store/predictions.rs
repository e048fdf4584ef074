//! Predictions as CSV or HDF5; both replace an older file only when they are whole.

use super::atomic::{self, Replacement};
use super::hdf;
use super::image::Image;
use crate::error::{Error, Result};
use hdf5::File;
use hdf5::types::VarLenUnicode;
use std::path::{Path, PathBuf};

/// A column of predictions.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Floating-point numbers.
    F64(Vec<f64>),
    /// Whole numbers, such as classes.
    I64(Vec<i64>),
    /// Texts, such as names of classes.
    Text(Vec<String>),
}

impl Column {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Column::F64(values) => values.len(),
            Column::I64(values) => values.len(),
            Column::Text(values) => values.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One row as text; an unknown number is empty.
    pub fn text(&self, row: usize) -> String {
        match self {
            Column::F64(values) if values[row].is_nan() => String::new(),
            Column::F64(values) => values[row].to_string(),
            Column::I64(values) => values[row].to_string(),
            Column::Text(values) => values[row].clone(),
        }
    }
}

fn failed(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::io(path, format!("cannot write the predictions: {what}"), "check the folder and its free space")
}

/// A file of predictions that grows by pieces, and replaces an older one when it is whole.
pub struct Writer(Format);

enum Format {
    /// Rows as text, quoted where needed, written as they come.
    Csv(Box<csv::Writer<Replacement>>, PathBuf),
    /// Columns, kept until the end.
    Hdf5(Vec<(String, Growing)>, PathBuf),
}

impl Writer {
    /// Begins a file: CSV, or HDF5 with a 1-D data set for each column.
    ///
    /// # Errors
    /// `Io` if the file cannot be made.
    pub fn create(path: &Path, csv: bool) -> Result<Self> {
        Ok(Self(match csv {
            true => Format::Csv(Box::new(csv::Writer::from_writer(Replacement::new(path)?)), path.to_owned()),
            false => Format::Hdf5(Vec::new(), path.to_owned()),
        }))
    }

    /// Appends rows; those of the first call name the columns, and later ones have the same.
    ///
    /// # Errors
    /// `Io` if the file cannot be written.
    pub fn append(&mut self, columns: Vec<(String, Column)>, first: bool) -> Result<()> {
        match &mut self.0 {
            Format::Csv(writer, path) => {
                if first {
                    writer.write_record(columns.iter().map(|(name, _)| name)).map_err(|e| failed(path, e))?;
                }
                for row in 0..columns.first().map_or(0, |(_, column)| column.len()) {
                    let row = columns.iter().map(|(_, column)| column.text(row));
                    writer.write_record(row).map_err(|e| failed(path, e))?;
                }
                Ok(())
            }
            Format::Hdf5(all, path) => {
                if first {
                    *all = columns.iter().map(|(name, column)| (name.clone(), Growing::new(column))).collect();
                }
                for ((_, to), (_, more)) in all.iter_mut().zip(columns) {
                    to.extend(more).ok_or_else(|| failed(path, "columns of another type"))?;
                }
                Ok(())
            }
        }
    }

    /// Makes the file take its name.
    ///
    /// # Errors
    /// `Io` if it cannot be written.
    pub fn commit(self) -> Result<()> {
        match self.0 {
            Format::Csv(writer, path) => writer.into_inner().map_err(|e| failed(&path, e.error()))?.commit(),
            Format::Hdf5(columns, path) => write_hdf5(&path, columns),
        }
    }
}

/// A column of which more comes: its texts lie one behind the other.
enum Growing {
    F64(Vec<f64>),
    I64(Vec<i64>),
    Text { all: String, ends: Vec<usize> },
}

impl Growing {
    fn new(column: &Column) -> Self {
        match column {
            Column::F64(_) => Growing::F64(Vec::new()),
            Column::I64(_) => Growing::I64(Vec::new()),
            Column::Text(_) => Growing::Text { all: String::new(), ends: Vec::new() },
        }
    }

    /// Appends rows; None if they are of another type.
    fn extend(&mut self, more: Column) -> Option<()> {
        match (self, more) {
            (Growing::F64(to), Column::F64(more)) => to.extend(more),
            (Growing::I64(to), Column::I64(more)) => to.extend(more),
            (Growing::Text { all, ends }, Column::Text(more)) => {
                for text in more {
                    all.push_str(&text);
                    ends.push(all.len());
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Writes a 1-D data set, and is gone.
    fn write(self, file: &File, name: &str) -> hdf5::Result<()> {
        /// Texts that are held a second time, each by itself, as the library wants them.
        const SOME: usize = 1 << 12;
        match self {
            Growing::F64(values) => file.new_dataset_builder().with_data(&values).create(name).map(drop),
            Growing::I64(values) => file.new_dataset_builder().with_data(&values).create(name).map(drop),
            Growing::Text { all, ends } => {
                let dataset = file.new_dataset::<VarLenUnicode>().no_chunk().shape(ends.len()).create(name)?;
                let mut start = 0;
                for (piece, first) in ends.chunks(SOME).zip((0..).step_by(SOME)) {
                    let text = |end: &usize| hdf::text_value(&all[std::mem::replace(&mut start, *end)..*end]);
                    let texts = piece.iter().map(text).collect::<hdf5::Result<Vec<_>>>()?;
                    dataset.write_slice(&texts, first..first + piece.len())?;
                }
                Ok(())
            }
        }
    }
}

/// Writes each column as a 1-D data set of its name. A column goes when it is written.
fn write_hdf5(path: &Path, columns: Vec<(String, Growing)>) -> Result<()> {
    let fill = |file: &File| columns.into_iter().try_for_each(|(name, column)| column.write(file, &name));
    let image = Image::make(0, fill).map_err(|e| failed(path, hdf::cause(&e)))?;
    atomic::write(path, image.bytes().map_err(|e| failed(path, hdf::cause(&e)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_quoted_and_atomic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.csv");
        let columns = |class: i64, name: &str| {
            vec![("class".into(), Column::I64(vec![class])), ("name".into(), Column::Text(vec![name.into()]))]
        };
        let mut writer = Writer::create(&path, true).unwrap();
        writer.append(columns(1, "a,b"), true).unwrap();
        writer.append(columns(2, "say \"x\""), false).unwrap();
        assert!(!path.exists());
        writer.commit().unwrap();
        let text = "class,name\n1,\"a,b\"\n2,\"say \"\"x\"\"\"\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        Writer::create(&path, true).unwrap().append(columns(3, ""), true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(Writer::create(&path.join("x.csv"), true).map(drop).unwrap_err().exit_code(), 74);
    }

    #[test]
    fn hdf5_grows_by_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.h5");
        let mut writer = Writer::create(&path, false).unwrap();
        for (piece, first) in [(vec![1, 2], true), (vec![3], false)] {
            let texts = piece.iter().map(|n| "x".repeat(*n as usize - 1)).collect();
            let columns = vec![("n".into(), Column::I64(piece)), ("t".into(), Column::Text(texts))];
            writer.append(columns, first).unwrap();
        }
        writer.commit().unwrap();
        let file = hdf::open(&path).unwrap();
        assert_eq!(file.dataset("n").unwrap().read_raw::<i64>().unwrap(), [1, 2, 3]);
        let texts = file.dataset("t").unwrap().read_raw::<VarLenUnicode>().unwrap();
        assert_eq!(texts.iter().map(hdf::utf8).collect::<Vec<_>>(), ["", "x", "xx"]);
    }

    #[test]
    fn columns_read_back_from_hdf5() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.h5");
        let columns = [
            ("score".to_string(), Column::F64(vec![0.5, f64::NAN])),
            ("class".to_string(), Column::I64(vec![-1, i64::MAX])),
            ("name".to_string(), Column::Text(vec!["é".into(), String::new()])),
            ("none".to_string(), Column::F64(vec![])),
        ];
        let write = |path: &Path| {
            let mut writer = Writer::create(path, false)?;
            writer.append(columns.to_vec(), true)?;
            writer.commit()
        };
        write(&path).unwrap();
        let file = hdf::open(&path).unwrap();
        assert_eq!(file.dataset("class").unwrap().read_raw::<i64>().unwrap(), [-1, i64::MAX]);
        assert!(file.dataset("score").unwrap().read_raw::<f64>().unwrap()[1].is_nan());
        let names = file.dataset("name").unwrap().read_raw::<VarLenUnicode>().unwrap();
        assert_eq!(names.iter().map(hdf::utf8).collect::<Vec<_>>(), ["é", ""]);
        assert_eq!(file.dataset("none").unwrap().get_shape().unwrap(), [0]);
        assert_eq!(write(&path.join("x.h5")).unwrap_err().exit_code(), 74);
    }
}
