//! The raw samples of a part, which may still be in files: ranks of a host then read them once between them.

use crate::data::format::file;
use crate::error::Result;
use crate::resource::memory;
use std::ops::Range;

/// Reads samples of a range into as many bytes as they take.
type Read = Box<dyn Fn(Range<usize>, &mut [u8]) -> Result<()>>;

/// Bulk that are still in files.
pub(in crate::data) struct Unread {
    /// How many there are.
    pub count: usize,
    /// Bytes of one in memory.
    pub size: usize,
    /// Reads some.
    pub read: Read,
}

/// Bulk to be kept somewhere.
pub struct Bulk<'a> {
    count: usize,
    size: usize,
    from: From<'a>,
}

enum From<'a> {
    Memory(&'a [u8]),
    Files(&'a Unread),
}

impl<'a> Bulk<'a> {
    /// Whole samples of `size` bytes.
    pub(in crate::data) fn in_memory(bytes: &'a [u8], size: usize) -> Self {
        Self { count: bytes.len() / size, size, from: From::Memory(bytes) }
    }

    pub(in crate::data) fn in_files(unread: &'a Unread) -> Self {
        Self { count: unread.count, size: unread.size, from: From::Files(unread) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of one.
    pub fn size(&self) -> usize {
        self.size
    }

    /// All of them. Errors: as of [`Bulk::write`].
    pub fn all(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let taken = memory::reserve(&mut bytes, self.count * self.size);
        taken.map_err(|e| file::no_room("the samples", &e))?;
        bytes.resize(self.count * self.size, 0);
        self.write(0..self.count, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes those of a range to as many bytes as they take. Errors: a file that cannot be read any more.
    pub fn write(&self, samples: Range<usize>, to: &mut [u8]) -> Result<()> {
        match self.from {
            From::Memory(bytes) => {
                to.copy_from_slice(&bytes[samples.start * self.size..samples.end * self.size]);
                Ok(())
            }
            From::Files(unread) => (unread.read)(samples, to),
        }
    }
}
