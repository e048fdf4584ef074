//! Rows of text with a header (CSV), field by field, where every error names file, line and column.

use super::file;
use crate::error::{Error, Result, shorten};
use crate::resource::memory::Steps;
use csv::{ByteRecord, Reader, ReaderBuilder, Trim};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// Some programs begin a text in UTF-8 with it.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A file of delimited text being read: its header and the current row.
pub(in crate::data) struct Rows {
    path: PathBuf,
    header: Vec<String>,
    reader: Reader<Steps<Box<dyn Read>>>,
    row: ByteRecord,
}

impl Rows {
    /// Opens a file and reads its header.
    pub fn open(path: &Path, delimiter: u8) -> Result<Self> {
        let mut text = file::open(path)?;
        // Before the parser sees it: a quotation mark behind a byte order mark would be none.
        let start = file::read_up_to(&mut text, path, BOM.len() as u64)?;
        let start = Cursor::new(if start == BOM { Vec::new() } else { start });
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .trim(Trim::All)
            .buffer_capacity(1 << 16)
            .from_reader(Steps::new(Box::new(start.chain(text)) as Box<dyn Read>));
        let fields = reader.byte_headers().map_err(|e| csv_error(path, e))?;
        let header: Vec<String> = fields.iter().map(|field| String::from_utf8_lossy(field).trim().to_owned()).collect();
        if header.iter().all(String::is_empty) {
            let place = path.display().to_string();
            return Err(Error::data(place, "the file is empty", "give a CSV file with a header and rows"));
        }
        Ok(Self { path: path.to_owned(), header, reader, row: ByteRecord::new() })
    }

    /// The names of the columns.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The column of this name, in whatever case.
    pub fn column(&self, name: &str) -> Option<usize> {
        let exact = self.header.iter().position(|field| field == name);
        exact.or_else(|| self.header.iter().position(|field| field.eq_ignore_ascii_case(name)))
    }

    /// The column of this name, or an error that lists the columns there are.
    pub fn require(&self, name: &str) -> Result<usize> {
        self.column(name).ok_or_else(|| {
            let place = format!("{}:1", self.path.display());
            let names: Vec<String> = self.header.iter().map(|name| shorten(name)).collect();
            Error::data(place, format!("no column \"{name}\""), format!("the columns are: {}", names.join(", ")))
        })
    }

    /// Goes to the next row; false at the end.
    pub fn next(&mut self) -> Result<bool> {
        self.reader.get_mut().restart();
        if !self.reader.read_byte_record(&mut self.row).map_err(|e| csv_error(&self.path, e))? {
            return Ok(false);
        }
        if self.row.len() != self.header.len() {
            let what = format!("{} fields where the header has {}", self.row.len(), self.header.len());
            return Err(Error::data(self.place(), what, "the row is cut off or has a stray delimiter; correct it"));
        }
        Ok(true)
    }

    /// A field of the current row.
    pub fn text(&self, column: usize) -> Result<&str> {
        let bytes = self.row.get(column).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| self.error(column, "not UTF-8 text", "save the file as UTF-8"))
    }

    /// An error at a field of the current row.
    pub fn error(&self, column: usize, what: impl Into<String>, mend: &str) -> Error {
        let name = self.header.get(column).map_or("?".into(), |name| shorten(name));
        Error::data(format!("{}, column {name}", self.place()), what, mend)
    }

    fn place(&self) -> String {
        let line = self.row.position().map_or(0, |position| position.line());
        format!("{}:{line}", self.path.display())
    }
}

fn csv_error(path: &Path, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => file::read_error(path, &e),
        _ => Error::data(path.display().to_string(), "the rows cannot be read", "give a CSV file"),
    }
}
