//! The samples of a part as bytes, which may still be in files: ranks of a host then read them once between them, or a rank reads
//! them as it needs them (`data::loader`).

use crate::data::format::file;
use crate::data::transform::split::Selection;
use crate::error::{Error, Result};
use crate::resource::memory;
use std::ops::{Deref, Range};

/// Reads samples of a range into as many bytes as they take.
pub(in crate::data) type Read = Box<dyn Fn(Range<usize>, &mut [u8]) -> Result<()> + Send + Sync>;

/// Bytes that are read at a time where all samples are looked at.
const PASS_BYTES: usize = 1 << 22;

/// Samples that are still in files.
pub(in crate::data) struct Unread {
    /// How many there are.
    pub count: usize,
    /// Bytes of one in memory.
    pub size: usize,
    /// So many consecutive ones are a chunk of the file; None where any one can be read by itself as well.
    pub chunk: Option<usize>,
    /// Whether one costs the reading of its chunk.
    pub packed: bool,
    /// What the file tells that normalisations are fitted on.
    pub statistics: Option<String>,
    /// Reads some.
    pub read: Read,
    /// Tells the system that some will be read soon, so that many reads are under way at once.
    pub announce: Box<dyn Fn(Range<usize>) + Send + Sync>,
    /// Of values of f32, which must be finite to train: the place and the part, for messages.
    pub finite: Option<(String, &'static str)>,
}

impl Unread {
    /// Samples of `size` bytes any of which can be read by itself.
    pub fn new(count: usize, size: usize, read: Read) -> Self {
        let announce = Box::new(|_| ());
        Self { count, size, chunk: None, packed: false, statistics: None, read, announce, finite: None }
    }

    /// Reads some to train on.
    ///
    /// # Errors
    /// A file that cannot be read any more; a value that is not finite.
    pub fn take(&self, samples: Range<usize>, to: &mut [u8]) -> Result<()> {
        (self.read)(samples.clone(), to)?;
        let Some((place, part)) = &self.finite else { return Ok(()) };
        let values: &[f32] = bytemuck::cast_slice(to);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(i) => Err(not_finite(place, part, samples.start + i / (self.size / size_of::<f32>()))),
        }
    }

    /// Hands all samples that are learnt from to `each`, in order, some at a time.
    ///
    /// # Errors
    /// As of `read`.
    pub fn pass(&self, selection: &Option<Selection>, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        let step = (PASS_BYTES / self.size.max(1)).max(1);
        let mut learnt = selection.as_ref().map(|selection| selection.train.iter().peekable());
        let mut bytes = Aligned::new(step.min(self.count) * self.size)?;
        for first in (0..self.count).step_by(step) {
            let samples = first..self.count.min(first + step);
            let bytes = &mut bytes.bytes_mut()[..samples.len() * self.size];
            (self.read)(samples.clone(), bytes)?;
            match &mut learnt {
                None => each(bytes),
                Some(learnt) => {
                    while let Some(sample) = learnt.next_if(|sample| (**sample as usize) < samples.end) {
                        each(&bytes[(*sample as usize - first) * self.size..][..self.size]);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a value that is no number is told as.
pub(in crate::data) fn not_finite(place: &str, part: &str, sample: usize) -> Error {
    let what = format!("sample {sample} of the {part} part holds a value that is not finite");
    Error::data(place, what, "replace or drop it, or normalise otherwise")
}

/// Bytes that may be elements of any type.
#[derive(Default)]
pub(in crate::data) struct Aligned {
    words: Vec<u64>,
    len: usize,
}

impl Aligned {
    /// So many zeros.
    ///
    /// # Errors
    /// There is no room.
    pub fn new(len: usize) -> Result<Self> {
        let mut words = Vec::new();
        let taken = memory::reserve(&mut words, len.div_ceil(8));
        taken.map_err(|e| file::no_room("the samples", &e))?;
        words.resize(len.div_ceil(8), 0);
        Ok(Self { words, len })
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

/// Samples to be kept somewhere.
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
    pub(in crate::data) fn all(&self) -> Result<Aligned> {
        let mut bytes = Aligned::new(self.count * self.size)?;
        self.write(0..self.count, bytes.bytes_mut())?;
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
