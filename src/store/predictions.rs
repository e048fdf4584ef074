//! Predictions as CSV or HDF5; both replace an older file only when they are whole.

use super::atomic::{self, Replacement};
use super::hdf;
use super::image::Image;
use crate::error::{Error, Result};
use hdf5::File;
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

    /// Appends another of its type; None if it is of another.
    fn extend(&mut self, more: Column) -> Option<()> {
        match (self, more) {
            (Column::F64(to), Column::F64(more)) => to.extend(more),
            (Column::I64(to), Column::I64(more)) => to.extend(more),
            (Column::Text(to), Column::Text(more)) => to.extend(more),
            _ => return None,
        }
        Some(())
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
    Hdf5(Vec<(String, Column)>, PathBuf),
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
            Format::Hdf5(all, _) if first => {
                *all = columns;
                Ok(())
            }
            Format::Hdf5(all, path) => {
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
            Format::Hdf5(columns, path) => write_hdf5(&path, &columns),
        }
    }
}

/// Writes each column as a 1-D data set of its name.
///
/// # Errors
/// `Io` if the file cannot be written.
pub fn write_hdf5(path: &Path, columns: &[(String, Column)]) -> Result<()> {
    let fill = |file: &File| {
        for (name, column) in columns {
            let name = name.as_str();
            match column {
                Column::F64(values) => file.new_dataset_builder().with_data(values).create(name)?,
                Column::I64(values) => file.new_dataset_builder().with_data(values).create(name)?,
                Column::Text(values) => {
                    let texts = values.iter().map(|t| hdf::text_value(t)).collect::<hdf5::Result<Vec<_>>>()?;
                    file.new_dataset_builder().with_data(&texts).create(name)?
                }
            };
        }
        Ok(())
    };
    let image = Image::make(0, fill).map_err(|e| failed(path, hdf::cause(&e)))?;
    atomic::write(path, image.bytes().map_err(|e| failed(path, hdf::cause(&e)))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdf5::types::VarLenUnicode;

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
            writer.append(vec![("n".into(), Column::I64(piece))], first).unwrap();
        }
        writer.commit().unwrap();
        let file = hdf::open(&path).unwrap();
        assert_eq!(file.dataset("n").unwrap().read_raw::<i64>().unwrap(), [1, 2, 3]);
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
        write_hdf5(&path, &columns).unwrap();
        let file = hdf::open(&path).unwrap();
        assert_eq!(file.dataset("class").unwrap().read_raw::<i64>().unwrap(), [-1, i64::MAX]);
        assert!(file.dataset("score").unwrap().read_raw::<f64>().unwrap()[1].is_nan());
        let names = file.dataset("name").unwrap().read_raw::<VarLenUnicode>().unwrap();
        assert_eq!(names.iter().map(hdf::utf8).collect::<Vec<_>>(), ["é", ""]);
        assert_eq!(file.dataset("none").unwrap().get_shape().unwrap(), [0]);
        assert_eq!(write_hdf5(&path.join("x.h5"), &columns).unwrap_err().exit_code(), 74);
    }
}
