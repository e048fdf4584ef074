//! Predictions as CSV or HDF5; both replace an older file only when they are whole.

use super::atomic::{self, Replacement};
use super::hdf;
use super::image::Image;
use crate::error::{Error, Result};
use hdf5::File;
use std::path::Path;

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

/// Writes a header and rows as CSV, quoted where needed.
///
/// # Errors
/// `Io` if the file cannot be written; `Internal` if a row is not as long as the header.
pub fn write_csv(path: &Path, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<()> {
    let file = Replacement::new(path)?;
    let mut writer = csv::Writer::from_writer(file);
    writer.write_record(header).map_err(|e| failed(path, e))?;
    for row in rows {
        if row.len() != header.len() {
            let what = format!("a row of {} fields under {} columns", row.len(), header.len());
            return Err(Error::internal("store::predictions::write_csv", what));
        }
        writer.write_record(&row).map_err(|e| failed(path, e))?;
    }
    writer.into_inner().map_err(|e| failed(path, e.error()))?.commit()
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
        let row = |a: &str, b: &str| vec![a.to_string(), b.to_string()];
        write_csv(&path, &["class", "name"], [row("1", "a,b"), row("2", "say \"x\"")].into_iter()).unwrap();
        let text = "class,name\n1,\"a,b\"\n2,\"say \"\"x\"\"\"\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let error = write_csv(&path, &["class"], [row("1", "2")].into_iter()).unwrap_err();
        assert_eq!(error.exit_code(), 70);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(write_csv(&path.join("x.csv"), &[], std::iter::empty()).unwrap_err().exit_code(), 74);
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
