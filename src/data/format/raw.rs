//! Arrays of one shape, appended row by row: from raw bytes of a known type, from numbers, or from pictures.

use super::image::{self, Picture};
use super::reserve;
use crate::error::{Error, Result};
use crate::store::table::{Array, Values};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The type of the elements in raw bytes, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    Uint8,
    Int8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Float32,
    Float64,
}

impl Dtype {
    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Dtype::Uint8 | Dtype::Int8 => 1,
            Dtype::Int16 | Dtype::Uint16 => 2,
            Dtype::Int32 | Dtype::Uint32 | Dtype::Float32 => 4,
            Dtype::Int64 | Dtype::Float64 => 8,
        }
    }

    /// The type of numpy's code, such as `u1`.
    pub fn of_numpy(code: &str) -> Option<Self> {
        Some(match code {
            "u1" => Dtype::Uint8,
            "i1" => Dtype::Int8,
            "i2" => Dtype::Int16,
            "u2" => Dtype::Uint16,
            "i4" => Dtype::Int32,
            "u4" => Dtype::Uint32,
            "i8" => Dtype::Int64,
            "f4" => Dtype::Float32,
            "f8" => Dtype::Float64,
            _ => return None,
        })
    }

    /// No elements yet, as arrays hold them.
    pub fn none(self) -> Values {
        match self {
            Dtype::Uint8 => Values::U8(Vec::new()),
            Dtype::Float32 => Values::F32(Vec::new()),
            Dtype::Float64 => Values::F64(Vec::new()),
            _ => Values::I64(Vec::new()),
        }
    }

    /// Appends the elements in `bytes`, of which there are whole ones.
    pub fn append(self, bytes: &[u8], values: &mut Values, path: &Path) -> Result<()> {
        let count = bytes.len() / self.size();
        fn each<const N: usize, T>(
            bytes: &[u8],
            to: &mut Vec<T>,
            count: usize,
            path: &Path,
            value: impl Fn([u8; N]) -> T,
        ) -> Result<()> {
            reserve(to, count, path)?;
            to.extend(bytes.as_chunks::<N>().0.iter().map(|&bytes| value(bytes)));
            Ok(())
        }
        match values {
            Values::U8(to) => each(bytes, to, count, path, |[byte]: [u8; 1]| byte),
            Values::F32(to) => each(bytes, to, count, path, f32::from_le_bytes),
            Values::F64(to) => each(bytes, to, count, path, f64::from_le_bytes),
            Values::I64(to) => match self {
                Dtype::Int8 => each(bytes, to, count, path, |b| i64::from(i8::from_le_bytes(b))),
                Dtype::Int16 => each(bytes, to, count, path, |b| i64::from(i16::from_le_bytes(b))),
                Dtype::Uint16 => each(bytes, to, count, path, |b| i64::from(u16::from_le_bytes(b))),
                Dtype::Int32 => each(bytes, to, count, path, |b| i64::from(i32::from_le_bytes(b))),
                Dtype::Uint32 => each(bytes, to, count, path, |b| i64::from(u32::from_le_bytes(b))),
                _ => each(bytes, to, count, path, i64::from_le_bytes),
            },
        }
    }
}

/// What the bytes of a cell are.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// Elements of a type, as many as the shape says.
    Raw(Dtype, Vec<usize>),
    /// A PNG or JPEG file.
    Picture(Picture),
}

/// Arrays being read.
#[derive(Debug)]
pub struct Arrays {
    shape: Vec<usize>,
    values: Values,
    form: Form,
}

impl Arrays {
    /// None yet. Errors: what is wrong with the shape.
    pub fn new(form: Form) -> Result<Self, String> {
        let (shape, values) = match &form {
            Form::Raw(dtype, shape) => (shape.clone(), dtype.none()),
            Form::Picture(_) => (Vec::new(), Values::U8(Vec::new())),
        };
        let elements = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim).filter(|&n| n < 1 << 40));
        match elements {
            Some(0) | None => Err(format!("the shape {shape:?} cannot be")),
            Some(_) => Ok(Self { shape, values, form }),
        }
    }

    /// None yet, of a length that the first row has.
    pub fn of_any_length(dtype: Dtype) -> Self {
        Self { shape: Vec::new(), values: dtype.none(), form: Form::Raw(dtype, Vec::new()) }
    }

    /// Appends a row of numbers as elements of the arrays' type.
    pub fn push_numbers(&mut self, row: &[f64], path: &Path, place: &dyn Fn() -> String) -> Result<()> {
        if self.shape.is_empty() {
            self.shape = vec![row.len()];
        }
        let row = match self.values {
            Values::U8(_) => Values::U8(row.iter().map(|&v| v as u8).collect()),
            Values::F32(_) => Values::F32(row.iter().map(|&v| v as f32).collect()),
            Values::F64(_) => Values::F64(row.to_vec()),
            Values::I64(_) => Values::I64(row.iter().map(|&v| v as i64).collect()),
        };
        self.push(row, path, place)
    }

    /// Elements of one row.
    pub fn row(&self) -> usize {
        self.shape.iter().product()
    }

    /// Appends the array in a cell's bytes. `place` is told of an error.
    pub fn push_bytes(&mut self, bytes: &[u8], path: &Path, place: &dyn Fn() -> String) -> Result<()> {
        match &mut self.form {
            Form::Raw(dtype, shape) => {
                let expected = shape.iter().product::<usize>().saturating_mul(dtype.size());
                if bytes.len() != expected {
                    let what = format!("{} bytes where the shape {shape:?} takes {expected}", bytes.len());
                    return Err(Error::data(place(), what, "correct the shape or the dtype of the feature"));
                }
                dtype.append(bytes, &mut self.values, path)
            }
            Form::Picture(picture) => {
                if let Values::U8(pixels) = &mut self.values {
                    image::append(bytes, picture, pixels, path, place)?;
                }
                let (h, w) = picture.size.unwrap_or_default();
                self.shape = vec![h, w, picture.channels.unwrap_or_default()];
                Ok(())
            }
        }
    }

    /// Appends one row of elements, which must be of the arrays' type.
    pub fn push(&mut self, row: Values, path: &Path, place: &dyn Fn() -> String) -> Result<()> {
        if row.len() != self.row() {
            let what = format!("{} values where the shape {:?} takes {}", row.len(), self.shape, self.row());
            return Err(Error::data(place(), what, "correct the shape of the feature"));
        }
        fn append<T>(to: &mut Vec<T>, row: Vec<T>, path: &Path) -> Result<()> {
            reserve(to, row.len(), path)?;
            to.extend(row);
            Ok(())
        }
        match (&mut self.values, row) {
            (Values::U8(to), Values::U8(row)) => append(to, row, path),
            (Values::F32(to), Values::F32(row)) => append(to, row, path),
            (Values::F64(to), Values::F64(row)) => append(to, row, path),
            (Values::I64(to), Values::I64(row)) => append(to, row, path),
            _ => Err(Error::data(place(), "values of another type than before", "give all of one type")),
        }
    }

    /// All of them.
    pub fn finish(self, rows: usize) -> Array {
        Array { shape: [&[rows], &self.shape[..]].concat(), values: self.values }
    }
}
