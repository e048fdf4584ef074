//! A Parquet file as the crate `parquet` may see it: no range beyond its end, no header that keeps the crate counting.

use super::thrift::counts_nothing;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

/// The length of the metadata as u32, and `PAR1`.
const FOOTER: u64 = 8;

pub const COUNTS_NOTHING: &str = "a list of truth values where none can be";

/// A file that refuses ranges beyond its end before memory is taken for them.
pub struct Bounded(File);

impl Bounded {
    /// A file that is open.
    pub fn new(file: File) -> Self {
        Self(file)
    }

    /// Where the metadata begin, if they are in the file.
    fn metadata(&self) -> Option<u64> {
        let end = Length::len(self).checked_sub(FOOTER)?;
        let mut length = [0; 4];
        self.0.read_exact_at(&mut length, end).ok()?;
        end.checked_sub(u64::from(u32::from_le_bytes(length)))
    }

    /// Whether the metadata would keep the crate counting: see [`counts_nothing`].
    pub fn counts_nothing(&self) -> bool {
        self.metadata().is_some_and(|start| counts_nothing(&self.0, start))
    }
}

/// The header of a page, which is looked through before its first byte is read.
pub struct Header {
    bytes: BufReader<File>,
    start: Option<u64>,
}

impl Read for Header {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self.start.take() {
            Some(start) if counts_nothing(self.bytes.get_ref(), start) => Err(io::Error::other(COUNTS_NOTHING)),
            _ => self.bytes.read(to),
        }
    }
}

impl Length for Bounded {
    fn len(&self) -> u64 {
        Length::len(&self.0)
    }
}

impl ChunkReader for Bounded {
    type T = Header;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        // The last 8 bytes are no header: they say how long the metadata are.
        let header = Some(start).filter(|start| start.saturating_add(FOOTER) != Length::len(self));
        Ok(Header { bytes: self.0.get_read(start)?, start: header })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<bytes::Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > Length::len(self)) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} are beyond the file's end")));
        }
        self.0.get_bytes(start, length)
    }
}
