//! Parquet files: columns of numbers, truth values, dates and times, texts, lists of one length, and pictures in bytes.
//! Read column by column without Arrow. Times become seconds and dates days since 1970; decimals numbers.

use super::bounded::{Bounded, COUNTS_NOTHING};
use super::raw::{Arrays, Dtype, Form};
use super::{Cells, Column, Table, Tables, Texts, damaged, reserve};
use crate::error::{Error, Result};
use crate::resource::contain::contain;
use crate::resource::open_file;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use std::path::{Path, PathBuf};

const OTHER: &str = "another type of column than in the first file";

/// Rows read at a time.
const ROWS: usize = 1024;

/// What is wanted of the files.
#[derive(Debug, Default)]
pub struct Wanted {
    /// These columns; none: all that are no bytes.
    pub columns: Vec<String>,
    /// The shape of lists and of raw bytes; none: (elements).
    pub shape: Option<Vec<usize>>,
    /// What bytes are.
    pub bytes: Option<Form>,
}

/// The wanted columns of some files, whose rows follow one another.
pub struct ParquetTables {
    files: Vec<PathBuf>,
    /// How many of them were opened.
    opened: usize,
    wanted: Wanted,
    /// The names of the columns, from the first file on.
    names: Vec<String>,
    current: Option<Open>,
    /// Rows before the current piece.
    before: usize,
    begun: bool,
}

/// A file being read.
struct Open {
    path: PathBuf,
    reader: SerializedFileReader<Bounded>,
    leaves: Vec<usize>,
    next_group: usize,
    group: Option<Group>,
}

/// A row group being read.
struct Group {
    number: usize,
    /// Rows that have not been read yet.
    left: usize,
    columns: Vec<(ColumnReader, Kind)>,
}

impl ParquetTables {
    /// Opens no file yet.
    pub fn new(files: Vec<PathBuf>, wanted: Wanted) -> Self {
        Self { files, opened: 0, wanted, names: Vec::new(), current: None, before: 0, begun: false }
    }

    /// Opens the next file; false after the last.
    fn open_next(&mut self) -> Result<bool> {
        let Some(path) = self.files.get(self.opened) else { return Ok(false) };
        let file = Bounded::new(open_file(path, "check data.path")?);
        if file.counts_nothing() {
            return Err(damaged(path, "its metadata", COUNTS_NOTHING));
        }
        let reader = SerializedFileReader::new(file).map_err(|e| failed(path, "its metadata", &e))?;
        let leaves = leaves(&reader, &self.wanted, path)?;
        let names: Vec<String> = leaves.iter().map(|(name, _)| name.clone()).collect();
        if self.opened == 0 {
            self.names = names;
        } else if names != self.names {
            let (here, first) = (names.join(", "), self.names.join(", "));
            let what = format!("the columns {here} where {} has {first}", self.files[0].display());
            return Err(Error::data(path.display().to_string(), what, "give files of the same columns"));
        }
        let leaves = leaves.into_iter().map(|(_, leaf)| leaf).collect();
        self.current = Some(Open { path: path.clone(), reader, leaves, next_group: 0, group: None });
        self.opened += 1;
        Ok(true)
    }

    fn read(&mut self, wanted: usize) -> Result<Option<Table>> {
        let (mut columns, mut rows): (Vec<Into>, usize) = (Vec::new(), 0);
        while rows < wanted {
            let Some(open) = &mut self.current else {
                if self.open_next()? {
                    continue;
                }
                break;
            };
            if columns.is_empty() {
                for (name, &leaf) in self.names.iter().zip(&open.leaves) {
                    let place = || format!("{}, column {name}", open.path.display());
                    let schema = open.reader.metadata().file_metadata().schema_descr();
                    columns.push(Into::of(&schema.column(leaf), &self.wanted, &place)?);
                }
            }
            let Some(group) = &mut open.group else {
                if !open.open_group(&self.names)? {
                    self.current = None;
                }
                continue;
            };
            let count = group.left.min(wanted - rows);
            let schema = open.reader.metadata().file_metadata().schema_descr();
            let inner = group.columns.iter_mut().zip(&mut columns).zip(self.names.iter().zip(&open.leaves));
            for (((column, kind), into), (name, &leaf)) in inner {
                let place = format!("row group {}, column {name}", group.number);
                let most = schema.column(leaf).max_def_level();
                let chunk = Chunk { path: &open.path, place: &place, first: self.before + rows, rows: count, most };
                chunk.read(column, *kind, into)?;
            }
            rows += count;
            group.left -= count;
            if group.left == 0 {
                open.group = None;
            }
        }
        self.before = self.before.saturating_add(rows);
        if std::mem::replace(&mut self.begun, true) && rows == 0 {
            return Ok(None);
        }
        let finish = |into| match into {
            Into::Numbers(values) => Cells::Numbers(values),
            Into::Texts(texts) => Cells::Texts(texts),
            Into::Lists(arrays) | Into::Bytes(arrays) => Cells::Arrays(arrays.finish(rows)),
        };
        let columns = self.names.iter().zip(columns);
        let columns = columns.map(|(name, into)| Column { name: name.clone(), cells: finish(into) }).collect();
        Ok(Some(Table { columns, rows }))
    }
}

impl Tables for ParquetTables {
    fn next(&mut self, rows: usize) -> Result<Option<Table>> {
        let read = contain(|| self.read(rows));
        let path = self.files.get(self.opened.saturating_sub(1)).cloned().unwrap_or_default();
        read.unwrap_or_else(|| Err(damaged(&path, "its pages", "no part of a Parquet file")))
    }
}

impl Open {
    /// Goes to the next row group; false after the last.
    fn open_group(&mut self, names: &[String]) -> Result<bool> {
        let number = self.next_group;
        if number == self.reader.num_row_groups() {
            return Ok(false);
        }
        let path = &self.path;
        let rows = self.reader.metadata().row_group(number).num_rows();
        let left =
            usize::try_from(rows).map_err(|_| damaged(path, format!("row group {number}"), format!("{rows} rows")))?;
        let opened = self.reader.get_row_group(number).map_err(|e| failed(path, &format!("row group {number}"), &e))?;
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let mut columns = Vec::new();
        for (name, &leaf) in names.iter().zip(&self.leaves) {
            let place = format!("row group {number}, column {name}");
            let column = opened.get_column_reader(leaf).map_err(|e| failed(path, &place, &e))?;
            match Kind::of(&schema.column(leaf)) {
                Some(kind) => columns.push((column, kind)),
                None => return Err(damaged(path, &place, OTHER)),
            }
        }
        self.next_group += 1;
        self.group = (left > 0).then_some(Group { number, left, columns });
        Ok(true)
    }
}

/// The names and numbers of the leaf columns that are wanted, in the order wanted.
fn leaves(reader: &SerializedFileReader<Bounded>, wanted: &Wanted, path: &Path) -> Result<Vec<(String, usize)>> {
    let schema = reader.metadata().file_metadata().schema_descr();
    // A list's column goes by the list's name, a struct's by its path.
    let name = |leaf: usize| {
        let column = schema.column(leaf);
        if column.max_rep_level() > 0 { schema.get_column_root(leaf).name().to_owned() } else { column.path().string() }
    };
    let names: Vec<String> = (0..schema.num_columns()).map(name).collect();
    if wanted.columns.is_empty() {
        let known = |leaf: usize| match Kind::of(&schema.column(leaf)) {
            Some(Kind::Bytes) => wanted.bytes.is_some(),
            kind => kind.is_some(),
        };
        return Ok(names.into_iter().zip(0..).filter(|&(_, leaf)| known(leaf)).collect());
    }
    let mut found = Vec::new();
    for name in &wanted.columns {
        // Pictures are stored as structs of bytes and path.
        let inner = format!("{name}.bytes");
        let leaf =
            names.iter().position(|known| known == name).or_else(|| names.iter().position(|known| *known == inner));
        let Some(leaf) = leaf else {
            let mend = format!("the columns are: {}", names.join(", "));
            return Err(Error::data(path.display().to_string(), format!("no column \"{name}\""), mend));
        };
        found.push((name.clone(), leaf));
    }
    Ok(found)
}

/// What a column's values mean.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// A number, to be divided.
    Number(f64),
    Unsigned,
    Half,
    Text,
    Bytes,
}

impl Kind {
    /// None for what cannot be used, such as intervals.
    fn of(column: &ColumnDescriptor) -> Option<Self> {
        use parquet::basic::Type;
        let physical = column.physical_type();
        let binary = matches!(physical, Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY);
        let unit = |unit: &TimeUnit| match unit {
            TimeUnit::MILLIS => 1e3,
            TimeUnit::MICROS => 1e6,
            TimeUnit::NANOS => 1e9,
        };
        Some(match (column.logical_type_ref(), column.converted_type()) {
            (Some(LogicalType::Timestamp(time) | LogicalType::Time(time)), _) => Kind::Number(unit(&time.unit)),
            (Some(LogicalType::Float16), _) => Kind::Half,
            (Some(LogicalType::Decimal(_)), _) | (_, ConvertedType::DECIMAL) => {
                Kind::Number(10f64.powi(column.type_scale()))
            }
            (_, ConvertedType::TIMESTAMP_MILLIS | ConvertedType::TIME_MILLIS) => Kind::Number(1e3),
            (_, ConvertedType::TIMESTAMP_MICROS | ConvertedType::TIME_MICROS) => Kind::Number(1e6),
            (_, ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64) => {
                Kind::Unsigned
            }
            (_, ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON) => Kind::Text,
            (_, ConvertedType::INTERVAL | ConvertedType::BSON) => return None,
            _ if binary => Kind::Bytes,
            _ => Kind::Number(1.0),
        })
    }
}

/// A column being read.
enum Into {
    Numbers(Vec<f64>),
    Texts(Texts),
    Lists(Arrays),
    Bytes(Arrays),
}

impl Into {
    fn of(column: &ColumnDescriptor, wanted: &Wanted, place: &dyn Fn() -> String) -> Result<Self> {
        use parquet::basic::Type;
        let refused = |what: &str, mend: &str| Error::data(place(), what, mend);
        let Some(kind) = Kind::of(column) else {
            return Err(refused("a type that is no number, text or picture", "name other columns in data.features"));
        };
        let wrong = |what: String| refused(&what, "correct data.shape");
        Ok(match kind {
            Kind::Bytes => {
                let Some(form) = &wanted.bytes else {
                    let mend =
                        "say what they are: data.bytes = \"image\", or a dtype such as \"uint8\" with data.shape";
                    return Err(refused("bytes", mend));
                };
                Into::Bytes(Arrays::new(form.clone()).map_err(wrong)?)
            }
            _ if column.max_rep_level() > 0 => {
                let dtype = match (column.physical_type(), kind) {
                    (Type::FLOAT, _) | (_, Kind::Half) => Dtype::Float32,
                    (Type::DOUBLE, _) => Dtype::Float64,
                    (_, Kind::Text) => return Err(refused("lists of texts", "name other columns in data.features")),
                    (_, Kind::Unsigned) if column.converted_type() == ConvertedType::UINT_8 => Dtype::Uint8,
                    (_, Kind::Number(1.0) | Kind::Unsigned) => Dtype::Int64,
                    _ => Dtype::Float64,
                };
                Into::Lists(match &wanted.shape {
                    Some(shape) => Arrays::new(Form::Raw(dtype, shape.clone())).map_err(wrong)?,
                    None => Arrays::of_any_length(dtype),
                })
            }
            Kind::Text => Into::Texts(Texts::default()),
            _ => Into::Numbers(Vec::new()),
        })
    }
}

/// The part of a column in a row group.
struct Chunk<'a> {
    path: &'a Path,
    place: &'a str,
    first: usize,
    rows: usize,
    /// The level of a value that is there.
    most: i16,
}

impl Chunk<'_> {
    fn read(&self, column: &mut ColumnReader, kind: Kind, into: &mut Into) -> Result<()> {
        let number = move |value: f64| if let Kind::Number(by) = kind { value / by } else { value };
        let signed = move |bytes: &ByteArray| match kind {
            Kind::Half => {
                half::f16::from_le_bytes([0, 1].map(|i| bytes.data().get(i).copied().unwrap_or_default())).to_f64()
            }
            _ => number(big_endian(bytes.data())),
        };
        let unsigned = kind == Kind::Unsigned;
        match column {
            ColumnReader::BoolColumnReader(r) => self.numbers(r, into, |&v| f64::from(u8::from(v))),
            ColumnReader::Int32ColumnReader(r) => {
                self.numbers(r, into, |&v| number(if unsigned { f64::from(v as u32) } else { f64::from(v) }))
            }
            ColumnReader::Int64ColumnReader(r) => {
                self.numbers(r, into, |&v| number(if unsigned { v as u64 as f64 } else { v as f64 }))
            }
            ColumnReader::Int96ColumnReader(r) => self.numbers(r, into, |v| {
                // Nanoseconds of a day in 64 bits, then the Julian day.
                let [low, high, day] = [0, 1, 2].map(|i| v.data().get(i).copied().unwrap_or_default());
                (f64::from(day) - 2_440_588.0) * 86_400.0 + ((u64::from(high) << 32 | u64::from(low)) as f64) / 1e9
            }),
            ColumnReader::FloatColumnReader(r) => self.numbers(r, into, |&v| f64::from(v)),
            ColumnReader::DoubleColumnReader(r) => self.numbers(r, into, |&v| v),
            ColumnReader::ByteArrayColumnReader(r) => self.bytes(r, into, |v| v, signed),
            ColumnReader::FixedLenByteArrayColumnReader(r) => self.bytes(r, into, |v| v, signed),
        }
    }

    /// Numbers, or lists of them.
    fn numbers<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        into: &mut Into,
        number: impl Fn(&T::T) -> f64,
    ) -> Result<()> {
        match into {
            Into::Numbers(values) => self.cells(reader, |_, found| {
                reserve(values, 1, self.path)?;
                values.push(found.map_or(f64::NAN, &number));
                Ok(())
            }),
            Into::Lists(arrays) => self.lists(reader, arrays, number),
            Into::Texts(_) | Into::Bytes(_) => Err(self.error(OTHER)),
        }
    }

    /// Texts, pictures, raw bytes, or numbers in bytes.
    fn bytes<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        into: &mut Into,
        bytes: impl Fn(&T::T) -> &ByteArray,
        number: impl Fn(&ByteArray) -> f64,
    ) -> Result<()> {
        let place = |row: usize| format!("{}, {}, row {row}", self.path.display(), self.place);
        match into {
            Into::Texts(texts) => self.cells(reader, |row, found| {
                let text = found.map(|value| std::str::from_utf8(bytes(value).data())).transpose();
                let text = text.map_err(|_| Error::data(place(row), "not UTF-8 text", "write it as UTF-8"))?;
                texts.push(text, self.path)
            }),
            Into::Bytes(arrays) => self.cells(reader, |row, found| match found {
                Some(value) => arrays.push_bytes(bytes(value).data(), self.path, &|| place(row)),
                None => Err(Error::data(place(row), "no value", "drop the row before")),
            }),
            _ => self.numbers(reader, into, |value| number(bytes(value))),
        }
    }

    /// Hands each row's value, if there is one, to `each`.
    fn cells<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        mut each: impl FnMut(usize, Option<&T::T>) -> Result<()>,
    ) -> Result<()> {
        let (mut levels, mut values, mut done) = (Vec::new(), Vec::new(), 0);
        while done < self.rows {
            levels.clear();
            values.clear();
            let wanted = ROWS.min(self.rows - done);
            let read = reader.read_records(wanted, Some(&mut levels), None, &mut values);
            let (rows, found, _) = read.map_err(|e| failed(self.path, self.place, &e))?;
            if rows == 0 || values.len() != found || (levels.len() != rows && found != rows) {
                return Err(self.error(&format!("it ends after {done} of {} rows", self.rows)));
            }
            let mut values = values.iter();
            for row in 0..rows {
                // Where no row can lack its value, there are no levels.
                let present = levels.get(row).is_none_or(|&level| level == self.most);
                let value = if present { values.next() } else { None };
                each(self.first + done + row, value)?;
            }
            done += rows;
        }
        Ok(())
    }

    /// Appends each row's list, of lists in lists all elements.
    fn lists<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        arrays: &mut Arrays,
        number: impl Fn(&T::T) -> f64,
    ) -> Result<()> {
        let (mut levels, mut repeats, mut values, mut done) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut row = Vec::new();
        while done < self.rows {
            levels.clear();
            repeats.clear();
            values.clear();
            let wanted = ROWS.min(self.rows - done);
            let read = reader.read_records(wanted, Some(&mut levels), Some(&mut repeats), &mut values);
            let (rows, found, _) = read.map_err(|e| failed(self.path, self.place, &e))?;
            let starts = repeats.iter().filter(|&&repeat| repeat == 0).count();
            if rows == 0 || starts != rows || values.len() != found || levels.len() != repeats.len() {
                return Err(self.error(&format!("it ends after {done} of {} rows", self.rows)));
            }
            let mut values = values.iter();
            for (i, &level) in levels.iter().enumerate() {
                let place = || format!("{}, {}, row {}", self.path.display(), self.place, self.first + done);
                match values.next().filter(|_| level == self.most) {
                    Some(value) => row.push(number(value)),
                    None => {
                        return Err(Error::data(
                            place(),
                            "a list that is missing, empty, or has no value",
                            "drop the row before",
                        ));
                    }
                }
                if repeats.get(i + 1).is_none_or(|&repeat| repeat == 0) {
                    arrays.push_numbers(&row, self.path, &place)?;
                    row.clear();
                    done += 1;
                }
            }
        }
        Ok(())
    }

    fn error(&self, what: &str) -> Error {
        damaged(self.path, self.place, what)
    }
}

/// A decimal's digits in bytes, signed, most significant first.
fn big_endian(bytes: &[u8]) -> f64 {
    let start = bytes.first().map_or(0.0, |&byte| if byte >= 0x80 { -1.0 } else { 0.0 });
    bytes.iter().fold(start, |value, &byte| value * 256.0 + f64::from(byte))
}

fn failed(path: &Path, place: &str, error: &ParquetError) -> Error {
    let text = error.to_string();
    let text = text.lines().next().unwrap_or_default();
    damaged(path, place, format!("no part of a Parquet file: {}", text.strip_prefix("Parquet error: ").unwrap_or(text)))
}
