//! Reading files, plain or gzip'd.

use crate::error::{Error, Result};
use crate::resource::{memory, open_file};
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Opens a file; gzip is known by its first two bytes, and expected where the name ends in `.gz`.
pub(in crate::data) fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = open_file(path, "check data.path")?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let start = reader.fill_buf().map_err(|e| read_error(path, &e))?;
    let gzip = start.starts_with(&[0x1f, 0x8b]) || path.extension().is_some_and(|ending| ending == "gz");
    Ok(if gzip { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) })
}

/// An error while reading: a broken gzip stream is bad data, anything else failed input.
pub(in crate::data) fn read_error(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => {
            let what = format!("it cannot be unpacked: {error}");
            Error::data(path.display().to_string(), what, "the file is damaged or cut off; get it anew")
        }
        ErrorKind::OutOfMemory => no_room(path.display().to_string(), error),
        _ => Error::io(path, error, "check the path and the disk"),
    }
}

/// An error while samples are read that were there when the file was opened.
pub(in crate::data) fn shrunk(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => {
            let what = "it became shorter while its samples were read";
            Error::data(path.display().to_string(), what, "give the whole file again, and go on with --resume")
        }
        _ => Error::io(path, format!("its samples cannot be read: {error}"), "check the disk, and go on with --resume"),
    }
}

/// An error for data that find no room in memory.
pub(in crate::data) fn no_room(place: impl Into<String>, shortage: &io::Error) -> Error {
    Error::data(place, shortage.to_string(), "give less data, or more memory")
}

/// Appends a value of a file, if there is room for it.
#[inline]
pub(in crate::data) fn push<T>(values: &mut Vec<T>, value: T, path: &Path) -> Result<()> {
    if values.len() == values.capacity() {
        memory::reserve(values, 1).map_err(|e| read_error(path, &e))?;
    }
    values.push(value);
    Ok(())
}

/// The rest of `reader`, of which at most `limit` bytes are taken.
pub(in crate::data) fn read_up_to(reader: &mut dyn Read, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    memory::read_to_end(reader, limit, &mut bytes).map_err(|e| read_error(path, &e))?;
    Ok(bytes)
}

/// The files in a folder, by name.
pub(in crate::data) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(folder, e, "check data.path");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    files.sort();
    Ok(files)
}
