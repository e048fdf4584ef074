//! NPY, numpy's form of one array: a header that tells type and shape, then the elements.

use crate::data::format::{Cut, RowStream, file, npy_text};
use crate::error::{Error, Result};
use crate::resource::memory;
use crate::store::rows;
use crate::store::table::{Array, Values};
use ndarray::ArrayD;
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// What every NPY file begins with.
pub const MAGIC: &[u8; 6] = b"\x93NUMPY";

const HEADER_LIMIT: usize = 1 << 16;

/// Reads a whole array of numbers, of any type and order. `place` is told of an error.
///
/// # Errors
/// No array, one of other things than numbers, more or fewer elements than the header promises, or too many for the memory.
pub fn read(reader: &mut impl Read, place: &str) -> Result<Array> {
    let mut bytes = Vec::new();
    let Elements { count, size, .. } = read_header(reader, &mut bytes).map_err(|what| damaged(place, what))?;
    // What is read is held twice for a while, and most integers become wider.
    let needed = count as f64 * (2.0 * size as f64 + 8.0);
    take(reader, &mut bytes, (count * size, count * size, true), needed, place)?;
    parse(&bytes).map_err(|e| damaged(place, e.to_string()))
}

/// Reads so many bytes of the elements that a header promises, and at their end that nothing follows, once there is memory for all that is `needed` for them: a header
/// may promise anything.
fn take(
    reader: &mut dyn Read,
    bytes: &mut Vec<u8>,
    (expected, promised, is_end): (usize, usize, bool),
    needed: f64,
    place: &str,
) -> Result<()> {
    let failed = |e: io::Error| match e.kind() {
        ErrorKind::OutOfMemory => file::no_room(place, &e),
        _ => damaged(place, e.to_string()),
    };
    memory::ask(needed).map_err(failed)?;
    match memory::read_to_end(reader, expected as u64 + u64::from(is_end), bytes).map_err(failed)? {
        found if found == expected => Ok(()),
        _ => Err(damaged(place, format!("its elements are not the {promised} bytes that its header promises"))),
    }
}

/// An array in a file of its own of which rows can be read as they are needed; none of one that lies in another order than in memory.
pub fn rows(path: &Path, mut file: File) -> Option<rows::Rows> {
    let mut header = Vec::new();
    let Elements { shape, kind, row_major, .. } = read_header(&mut file, &mut header).ok()?;
    let kind = match kind.as_str() {
        "|u1" | "<u1" => rows::Kind::U8,
        "<f4" => rows::Kind::F32,
        "<f8" => rows::Kind::F64,
        "<i8" => rows::Kind::I64,
        _ => return None,
    };
    if !row_major {
        return None;
    }
    rows::Rows::direct(path, file, header.len() as u64, kind, shape)
}

/// How many rows an array of numbers, texts or times has; none of one that cannot be read.
pub fn length(reader: &mut impl Read) -> Option<usize> {
    let known = |kind: &str| element_bytes(kind).or_else(|| npy_text::element_bytes(kind));
    promised(reader, &mut Vec::new(), known).ok()?.shape.first().copied()
}

/// Reads an array (N) of texts or times; none of one that holds other things.
///
/// # Errors
/// As of [`read`].
pub fn texts(reader: &mut impl Read, place: &str) -> Result<Option<Vec<String>>> {
    let Ok(Elements { size, shape, kind, .. }) = promised(reader, &mut Vec::new(), npy_text::element_bytes) else {
        return Ok(None);
    };
    let [count] = shape[..] else { return Ok(None) };
    // The elements, and a text of each.
    let needed = count as f64 * (2.0 * size as f64 + size_of::<String>() as f64);
    let mut bytes = Vec::new();
    take(reader, &mut bytes, (count * size, count * size, true), needed, place)?;
    let text = |(i, element): (usize, &[u8])| {
        npy_text::text(&kind, element).ok_or_else(|| damaged(place, format!("element {i} is no text or time")))
    };
    bytes.chunks_exact(size.max(1)).enumerate().map(text).collect::<Result<Vec<_>>>().map(Some)
}

/// An array of which rows are read from `reader` as they are asked for. One whose first dimension is not the outermost in the file
/// is read whole.
///
/// # Errors
/// As of [`read`], later on too.
pub fn stream(mut reader: Box<dyn Read>, place: &str) -> Result<Box<dyn RowStream>> {
    let mut header = Vec::new();
    let elements = read_header(&mut reader, &mut header).map_err(|what| damaged(place, what))?;
    if elements.count == 0 || elements.shape.is_empty() || !elements.row_major {
        return Ok(Box::new(Cut::new(read(&mut header.chain(reader), place)?)));
    }
    Ok(Box::new(Rows { reader, elements, at: 0, place: place.to_owned() }))
}

fn damaged(place: &str, what: String) -> Error {
    Error::data(place, what, "the file is damaged or no array of numbers; write it anew with numpy")
}

/// See [`stream`].
struct Rows {
    reader: Box<dyn Read>,
    elements: Elements,
    at: usize,
    place: String,
}

impl RowStream for Rows {
    fn shape(&self) -> &[usize] {
        &self.elements.shape
    }

    fn next(&mut self, rows: usize) -> Result<Array> {
        let Elements { count, size, shape, kind, .. } = &self.elements;
        let rows = rows.min(shape[0] - self.at);
        let expected = rows * (count / shape[0]) * size;
        let needed = expected as f64 * (2.0 + 8.0 / *size as f64);
        let mut bytes = header(kind, &[&[rows], &shape[1..]].concat());
        self.at += rows;
        take(&mut self.reader, &mut bytes, (expected, count * size, self.at == shape[0]), needed, &self.place)?;
        parse(&bytes).map_err(|e| damaged(&self.place, e.to_string()))
    }
}

/// The header of some rows.
fn header(kind: &str, shape: &[usize]) -> Vec<u8> {
    let dims: String = shape.iter().map(|dim| format!("{dim},")).collect();
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({dims}), }}\n");
    [&MAGIC[..], &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat()
}

/// How many elements an array has, the bytes of each, and how they lie.
struct Elements {
    count: usize,
    size: usize,
    shape: Vec<usize>,
    kind: String,
    row_major: bool,
}

/// Reads an array's header into `bytes` and gives the elements that it promises. ndarray-npy parses the header
/// itself later; this guards it against lengths and nesting that would end the process.
fn read_header(reader: &mut impl Read, bytes: &mut Vec<u8>) -> Result<Elements, String> {
    promised(reader, bytes, element_bytes)
}

/// As [`read_header`], of types of which `size` knows the bytes.
fn promised(
    reader: &mut impl Read,
    bytes: &mut Vec<u8>,
    size: impl Fn(&str) -> Option<usize>,
) -> Result<Elements, String> {
    let mut more = |bytes: &mut Vec<u8>, count: usize| {
        let found = reader.take(count as u64).read_to_end(bytes).map_err(|e| e.to_string())?;
        if found == count { Ok(()) } else { Err("it ends within its header".to_owned()) }
    };
    more(bytes, 8)?;
    if bytes[..6] != *MAGIC {
        return Err("not a numpy array".into());
    }
    let length = if bytes[6] == 1 { 2 } else { 4 };
    more(bytes, length)?;
    let length = bytes[8..].iter().rev().fold(0usize, |value, &byte| value << 8 | usize::from(byte));
    if length > HEADER_LIMIT {
        return Err(format!("a header of {length} bytes"));
    }
    let start = bytes.len();
    more(bytes, length)?;
    let text = String::from_utf8_lossy(&bytes[start..]);
    // {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
    let value = |key: &str| text.split_once(&format!("'{key}'")).and_then(|(_, rest)| rest.split_once(':'));
    let kind = value("descr").and_then(|(_, rest)| rest.split('\'').nth(1)).unwrap_or_default();
    // Those of `<M8[ns]` nest nothing.
    if text.matches(['(', '[', '{']).count() > 2 + kind.matches('[').count() {
        return Err("its elements are records, not numbers".into());
    }
    let shape = value("shape").and_then(|(_, rest)| rest.split_once('(')).and_then(|(_, rest)| rest.split_once(')'));
    let (Some((shape, _)), Some(size)) = (shape, size(kind)) else {
        return Err(format!("elements of type \"{kind}\" are no numbers that can be used"));
    };
    let dims = shape.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    let dims: Option<Vec<usize>> = dims.map(|dim| dim.parse::<usize>().ok()).collect();
    let dims = dims.ok_or_else(|| format!("the shape ({shape}) cannot be"))?;
    let count = dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    let count = count.filter(|&n| n.checked_mul(size).is_some_and(|bytes| bytes < usize::MAX / 2));
    let count = count.ok_or_else(|| format!("the shape ({shape}) cannot be"))?;
    let row_major = value("fortran_order").is_some_and(|(_, rest)| rest.trim_start().starts_with("False"));
    Ok(Elements { count, size, shape: dims, kind: kind.to_owned(), row_major })
}

/// Bytes of an element, of the types that [`parse`] knows.
fn element_bytes(kind: &str) -> Option<usize> {
    match kind.trim_start_matches(['<', '>', '|', '=']) {
        "f4" | "i4" | "u4" => Some(4),
        "f8" | "i8" | "u8" => Some(8),
        "i2" | "u2" => Some(2),
        "b1" | "i1" | "u1" => Some(1),
        _ => None,
    }
}

/// A whole .npy file of any number type.
fn parse(npy: &[u8]) -> Result<Array, ReadNpyError> {
    let wide = Values::I64;
    attempt::<f32>(npy, Values::F32)
        .or_else(|e| retry(e, || attempt::<u8>(npy, Values::U8)))
        .or_else(|e| retry(e, || attempt::<f64>(npy, Values::F64)))
        .or_else(|e| retry(e, || attempt::<i64>(npy, wide)))
        .or_else(|e| retry(e, || attempt::<i32>(npy, |v| wide(v.into_iter().map(i64::from).collect()))))
        .or_else(|e| retry(e, || attempt::<u32>(npy, |v| wide(v.into_iter().map(i64::from).collect()))))
        .or_else(|e| retry(e, || attempt::<i16>(npy, |v| wide(v.into_iter().map(i64::from).collect()))))
        .or_else(|e| retry(e, || attempt::<u16>(npy, |v| wide(v.into_iter().map(i64::from).collect()))))
        .or_else(|e| retry(e, || attempt::<i8>(npy, |v| wide(v.into_iter().map(i64::from).collect()))))
        .or_else(|e| retry(e, || attempt::<bool>(npy, |v| wide(v.into_iter().map(i64::from).collect()))))
        .or_else(|e| {
            let clamp = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
            retry(e, || attempt::<u64>(npy, |v| wide(v.into_iter().map(clamp).collect())))
        })
}

/// The next type, if it was the type that was wrong.
fn retry(error: ReadNpyError, next: impl FnOnce() -> Result<Array, ReadNpyError>) -> Result<Array, ReadNpyError> {
    if matches!(error, ReadNpyError::WrongDescriptor(_)) { next() } else { Err(error) }
}

/// As one type, row-major whatever the order in the file.
fn attempt<T: ReadableElement + Clone>(
    npy: &[u8],
    values: impl FnOnce(Vec<T>) -> Values,
) -> Result<Array, ReadNpyError> {
    let array = ArrayD::<T>::read_npy(npy)?;
    let shape = array.shape().to_vec();
    let elements =
        if array.is_standard_layout() { array.into_raw_vec_and_offset().0 } else { array.iter().cloned().collect() };
    Ok(Array { shape, values: values(elements) })
}
