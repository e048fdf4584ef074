//! Python pickles read as data: numbers, texts, lists, dictionaries and numpy arrays. What a pickle would call is never
//! called: the few names that numpy's own arrays need are known here as data, any other is refused.
//!
//! The opcodes are those of Python's `pickletools`, protocols 0 to 4 as far as such files use them.

mod machine;

use crate::error::{Error, Result};
use crate::store::table::{Array, Values};
use machine::Machine;
use std::borrow::Cow;
use std::path::Path;

/// The number of a value in a [`Pickle`].
pub type Id = usize;

/// A value. Lists and such hold the numbers of others, since a pickle may hold a value twice, or in itself.
#[derive(Debug, Clone)]
enum Value {
    None,
    Mark,
    Integer(i64),
    Bytes(Vec<u8>),
    Text(String),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// An element type by its code (`u1`), and whether most significant bytes come first.
    Dtype(String, bool),
    Array {
        shape: Vec<usize>,
        dtype: Id,
        fortran: bool,
        data: Id,
    },
}

/// The names that are known.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Global {
    Reconstruct,
    Ndarray,
    Dtype,
    Encode,
}

/// What a pickle holds.
pub struct Pickle<'a> {
    path: &'a Path,
    values: Vec<Value>,
    root: Id,
}

const MEND: &str = "give the file as it was published; a pickle with code is never run";

impl<'a> Pickle<'a> {
    /// Reads a pickle of the file `path`.
    pub fn parse(bytes: &[u8], path: &'a Path) -> Result<Self> {
        let mut machine = Machine::new(bytes, path);
        let root = machine.run()?;
        Ok(Self { path, values: machine.values, root })
    }

    /// The value of a key, text or bytes, of the dictionary that the pickle is.
    pub fn get(&self, key: &str) -> Result<Id> {
        let Value::Dict(pairs) = &self.values[self.root] else {
            return Err(self.error("it holds no dictionary"));
        };
        let is = |id: Id| self.text(id).is_some_and(|text| text == key);
        // The last of equal keys counts, as in Python.
        match pairs.iter().rev().find(|(name, _)| is(*name)) {
            Some((_, value)) => Ok(*value),
            None => {
                let mut known: Vec<Cow<str>> = pairs.iter().take(20).filter_map(|(name, _)| self.text(*name)).collect();
                known.sort_unstable();
                Err(self.error(&format!("no \"{key}\" in it; there are: {}", known.join(", "))))
            }
        }
    }

    /// A text, or bytes that are one.
    fn text(&self, id: Id) -> Option<Cow<'_, str>> {
        match &self.values[id] {
            Value::Text(text) => Some(text.into()),
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(Into::into),
            _ => None,
        }
    }

    /// A list of texts.
    pub fn texts(&self, id: Id) -> Result<Vec<String>> {
        let Value::List(items) = &self.values[id] else { return Err(self.error("no list of texts")) };
        let texts: Option<Vec<String>> = items.iter().map(|&item| Some(self.text(item)?.into_owned())).collect();
        texts.ok_or_else(|| self.error("a list of other things than texts"))
    }

    /// A list of integers, or an array of them.
    pub fn integers(&self, id: Id) -> Result<Vec<i64>> {
        match &self.values[id] {
            Value::List(items) => {
                let number =
                    |&item: &Id| if let Value::Integer(value) = self.values[item] { Some(value) } else { None };
                let numbers: Option<Vec<i64>> = items.iter().map(number).collect();
                numbers.ok_or_else(|| self.error("a list of other things than integers"))
            }
            _ => match self.array(id)?.values {
                Values::U8(values) => Ok(values.into_iter().map(i64::from).collect()),
                Values::I64(values) => Ok(values),
                _ => Err(self.error("an array of floats where integers should be")),
            },
        }
    }

    /// A numpy array.
    pub fn array(&self, id: Id) -> Result<Array> {
        let Value::Array { shape, dtype, fortran, data } = &self.values[id] else {
            return Err(self.error("no numpy array where one should be"));
        };
        let (Value::Dtype(kind, big), Value::Bytes(bytes)) = (&self.values[*dtype], &self.values[*data]) else {
            return Err(self.error("an array without type or bytes"));
        };
        let dtype = super::raw::Dtype::of_numpy(kind);
        let Some(dtype) = dtype.filter(|dtype| !big || dtype.size() == 1) else {
            return Err(self.error(&format!("an array of type \"{kind}\", which is none of little-endian numbers")));
        };
        let expected = shape.iter().try_fold(dtype.size(), |n, &dim| n.checked_mul(dim));
        if expected != Some(bytes.len()) {
            return Err(self.error(&format!("{} bytes for an array of {shape:?} {kind}", bytes.len())));
        }
        if *fortran && shape.iter().filter(|&&dim| dim > 1).count() > 1 {
            return Err(self.error("an array in Fortran's order"));
        }
        let mut values = dtype.none();
        dtype.append(bytes, &mut values, self.path)?;
        Ok(Array { shape: shape.clone(), values })
    }

    fn error(&self, what: &str) -> Error {
        Error::data(self.path.display().to_string(), what, MEND)
    }
}
