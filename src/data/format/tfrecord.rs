//! TFRecord files of `tf.train.Example`, plain or packed by gzip or zlib, with the features that the job declares.
//!
//! A record: its length as u64, the masked CRC32C of those 8 bytes as u32, the bytes, their masked CRC32C; all
//! little-endian. The message's fields are those of TensorFlow's `example.proto` and `feature.proto`.

use super::raw::{Arrays, Dtype, Form};
use super::{Cells, Column, Table, Tables, Texts, damaged, reserve};
use crate::error::{Error, Result};
use crate::resource::open_file;
use crate::store::table::Values;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use prost::Message;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

#[derive(Clone, PartialEq, Message)]
struct Example {
    #[prost(message, optional, tag = "1")]
    features: Option<Features>,
}

#[derive(Clone, PartialEq, Message)]
struct Features {
    #[prost(map = "string, message", tag = "1")]
    feature: HashMap<String, Feature>,
}

#[derive(Clone, PartialEq, Message)]
struct Feature {
    #[prost(oneof = "Kind", tags = "1, 2, 3")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Bytes(BytesList),
    #[prost(message, tag = "2")]
    Floats(FloatList),
    #[prost(message, tag = "3")]
    Integers(Int64List),
}

#[derive(Clone, PartialEq, Message)]
struct BytesList {
    #[prost(bytes = "vec", repeated, tag = "1")]
    value: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct FloatList {
    #[prost(float, repeated, tag = "1")]
    value: Vec<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct Int64List {
    #[prost(int64, repeated, tag = "1")]
    value: Vec<i64>,
}

/// No message is longer, by the rules of protocol buffers.
const LONGEST_RECORD: u64 = (1 << 31) - 1;

/// One feature as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    pub name: String,
    pub kind: Declaration,
}

/// What a feature holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Declaration {
    /// One text in bytes.
    Text,
    /// One array in bytes.
    Bytes(Form),
    /// Floats, as many as the shape says; of no shape one, which may be missing.
    Floats(Vec<usize>),
    /// Integers, likewise.
    Integers(Vec<usize>),
}

/// A column being read.
enum Reading {
    Texts(Texts),
    Numbers(Vec<f64>),
    Arrays(Arrays),
}

/// The declared features of all records in some files, one after the other.
pub struct RecordTables {
    declared: Vec<Declared>,
    files: std::vec::IntoIter<PathBuf>,
    records: Option<Records>,
    record: Vec<u8>,
    begun: bool,
}

impl RecordTables {
    /// Opens no file yet.
    ///
    /// # Errors
    /// A shape that cannot be.
    pub fn new(files: Vec<PathBuf>, declared: Vec<Declared>) -> Result<Self> {
        declared.iter().try_for_each(|feature| Reading::of(feature).map(drop))?;
        Ok(Self { declared, files: files.into_iter(), records: None, record: Vec::new(), begun: false })
    }
}

impl Reading {
    fn of(feature: &Declared) -> Result<Self> {
        let arrays = |form| {
            let wrong =
                |what: String| Error::usage(format!("data.features.{}", feature.name), what, "correct its shape");
            Arrays::new(form).map(Reading::Arrays).map_err(wrong)
        };
        Ok(match &feature.kind {
            Declaration::Text => Reading::Texts(Texts::default()),
            Declaration::Bytes(form) => arrays(form.clone())?,
            Declaration::Floats(shape) | Declaration::Integers(shape) if shape.is_empty() => {
                Reading::Numbers(Vec::new())
            }
            Declaration::Floats(shape) => arrays(Form::Raw(Dtype::Float32, shape.clone()))?,
            Declaration::Integers(shape) => arrays(Form::Raw(Dtype::Int64, shape.clone()))?,
        })
    }

    fn finish(self, rows: usize) -> Cells {
        match self {
            Reading::Texts(texts) => Cells::Texts(texts),
            Reading::Numbers(values) => Cells::Numbers(values),
            Reading::Arrays(arrays) => Cells::Arrays(arrays.finish(rows)),
        }
    }
}

impl Tables for RecordTables {
    fn next(&mut self, wanted: usize) -> Result<Option<Table>> {
        let mut columns = self.declared.iter().map(Reading::of).collect::<Result<Vec<_>>>()?;
        let mut rows = 0;
        while rows < wanted {
            let Some(records) = &mut self.records else {
                let Some(path) = self.files.next() else { break };
                self.records = Some(Records::open(&path)?);
                continue;
            };
            if !records.next(&mut self.record)? {
                self.records = None;
                continue;
            }
            append_record(&self.record, records, &self.declared, &mut columns)?;
            rows += 1;
        }
        if std::mem::replace(&mut self.begun, true) && rows == 0 {
            return Ok(None);
        }
        let column =
            |(feature, column): (&Declared, Reading)| Column { name: feature.name.clone(), cells: column.finish(rows) };
        Ok(Some(Table { columns: self.declared.iter().zip(columns).map(column).collect(), rows }))
    }
}

/// Appends the declared features of a record.
fn append_record(record: &[u8], records: &Records, declared: &[Declared], columns: &mut [Reading]) -> Result<()> {
    let path = &records.path;
    let example =
        Example::decode(record).map_err(|e| damaged(path, records.place(), format!("no tf.train.Example: {e}")))?;
    let mut features = example.features.unwrap_or_default().feature;
    for (feature, column) in declared.iter().zip(columns) {
        let found = features.remove(&feature.name).and_then(|feature| feature.kind);
        let place = || format!("{}, {}, feature {}", path.display(), records.place(), feature.name);
        if found.is_none() && !matches!(column, Reading::Numbers(_) | Reading::Texts(_)) {
            let mut known: Vec<&str> = features.keys().map(String::as_str).collect();
            known.sort_unstable();
            let mend = format!("correct data.features; the others here are: {}", known.join(", "));
            return Err(Error::data(place(), "no such feature", mend));
        }
        append(found, &feature.kind, column, path, &place)?;
    }
    Ok(())
}

/// Appends what a record has of a feature.
fn append(
    found: Option<Kind>,
    kind: &Declaration,
    column: &mut Reading,
    path: &Path,
    place: &dyn Fn() -> String,
) -> Result<()> {
    let wanted = match kind {
        Declaration::Text | Declaration::Bytes(_) => "bytes",
        Declaration::Floats(_) => "floats",
        Declaration::Integers(_) => "integers",
    };
    let is = match &found {
        Some(Kind::Bytes(_)) => "bytes",
        Some(Kind::Floats(_)) => "floats",
        Some(Kind::Integers(_)) => "integers",
        None => wanted,
    };
    if is != wanted {
        let what = format!("{is} where {wanted} are declared");
        return Err(Error::data(place(), what, "correct its type in data.features"));
    }
    let count = |count: usize| {
        let what = format!("{count} values where one is declared");
        Err(Error::data(place(), what, "correct its shape in data.features"))
    };
    match (column, found) {
        (Reading::Texts(texts), Some(Kind::Bytes(list))) => match &list.value[..] {
            [] => texts.push(None, path),
            [text] => match std::str::from_utf8(text) {
                Ok(text) => texts.push(Some(text), path),
                Err(_) => Err(Error::data(place(), "not UTF-8 text", "declare its dtype and shape, or an image")),
            },
            more => count(more.len()),
        },
        (Reading::Arrays(arrays), Some(Kind::Bytes(list))) => match &list.value[..] {
            [bytes] => arrays.push_bytes(bytes, path, place),
            other => count(other.len()),
        },
        (Reading::Arrays(arrays), Some(Kind::Floats(list))) => arrays.push(Values::F32(list.value), path, place),
        (Reading::Arrays(arrays), Some(Kind::Integers(list))) => arrays.push(Values::I64(list.value), path, place),
        (Reading::Numbers(values), found) => {
            let found = match found {
                Some(Kind::Floats(list)) => list.value.into_iter().map(f64::from).collect(),
                Some(Kind::Integers(list)) => list.value.into_iter().map(|value| value as f64).collect(),
                _ => Vec::new(),
            };
            if found.len() > 1 {
                return count(found.len());
            }
            reserve(values, 1, path)?;
            values.push(found.first().copied().unwrap_or(f64::NAN));
            Ok(())
        }
        (Reading::Texts(texts), _) => texts.push(None, path),
        (Reading::Arrays(_), None) => count(0),
    }
}

/// The records of a file.
struct Records {
    path: PathBuf,
    reader: Box<dyn Read>,
    /// Of the current record, in what is unpacked.
    start: u64,
    next: u64,
    number: u64,
}

impl Records {
    fn open(path: &Path) -> Result<Self> {
        let file = open_file(path, "check data.path")?;
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let head = reader.fill_buf().map_err(|e| Error::io(path, e, "check the path and the disk"))?;
        // A record's length may begin with the two bytes of gzip or zlib; its checksum tells.
        let plain = head.len() >= 12 && masked(&head[..8]).to_le_bytes() == head[8..12];
        let zlib =
            head.len() >= 2 && head[0] == 0x78 && (u32::from(head[0]) * 256 + u32::from(head[1])).is_multiple_of(31);
        let reader: Box<dyn Read> = if !plain && head.starts_with(&[0x1f, 0x8b]) {
            Box::new(MultiGzDecoder::new(reader))
        } else if !plain && zlib {
            Box::new(ZlibDecoder::new(reader))
        } else {
            Box::new(reader)
        };
        Ok(Self {
            path: path.to_owned(),
            reader: Box::new(BufReader::with_capacity(1 << 16, reader)),
            start: 0,
            next: 0,
            number: 0,
        })
    }

    /// Where the current record is.
    fn place(&self) -> String {
        format!("record {} at byte {}", self.number, self.start)
    }

    /// Reads the next record; false at the end.
    fn next(&mut self, record: &mut Vec<u8>) -> Result<bool> {
        (self.start, self.number) = (self.next, self.number + 1);
        self.take(12, record)?;
        if record.is_empty() {
            return Ok(false);
        }
        let error = |what: &str| Err(damaged(&self.path, self.place(), what));
        let Some((length, sum)) = record.split_first_chunk::<8>().filter(|(_, sum)| sum.len() == 4) else {
            return error("it ends within a record's length");
        };
        if masked(length).to_le_bytes() != sum {
            return error("the checksum of the record's length is wrong");
        }
        let length = u64::from_le_bytes(*length);
        if length > LONGEST_RECORD {
            return error(&format!("a record of {length} bytes, more than any message has"));
        }
        self.take(length + 4, record)?;
        let error = |what: &str| Err(damaged(&self.path, self.place(), what));
        let Some((data, sum)) = record.split_last_chunk::<4>().filter(|(data, _)| data.len() as u64 == length) else {
            return error(&format!("it ends within a record of {length} bytes"));
        };
        if masked(data).to_le_bytes() != *sum {
            return error("the checksum of the record is wrong");
        }
        record.truncate(length as usize);
        Ok(true)
    }

    /// Reads up to `count` bytes, asking for memory step by step.
    fn take(&mut self, count: u64, bytes: &mut Vec<u8>) -> Result<()> {
        const STEP: u64 = 1 << 20;
        bytes.clear();
        loop {
            let left = (count - bytes.len() as u64).min(STEP);
            reserve(bytes, left as usize, &self.path)?;
            let read = (&mut self.reader).take(left).read_to_end(bytes);
            let read = read.map_err(|e| crate::data::format::file::read_error(&self.path, &e))?;
            self.next += read as u64;
            if read == 0 {
                return Ok(());
            }
        }
    }
}

/// TensorFlow's masked checksum.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
