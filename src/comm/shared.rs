//! Memory that the ranks of a host have in common.

use super::Host;
use crate::arena::Buffer;
use crate::error::Result;
use crate::shard::own;
use bytemuck::{Pod, Zeroable};
use std::any::Any;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// Zeroed elements that all ranks of a host see. What one rank writes, another may read after a
/// [`Host::barrier`](super::Host::barrier).
pub struct Shared<T> {
    data: NonNull<T>,
    len: usize,
    /// Frees the memory.
    _owner: Box<dyn Any>,
}

impl<T: Zeroable + Copy + 'static> Shared<T> {
    /// Memory of this rank alone.
    pub fn private(len: usize) -> Self {
        let mut buffer = Buffer::<T>::zeros(len);
        let data = NonNull::from(&mut *buffer).cast();
        Self { data, len, _owner: Box::new(buffer) }
    }

    /// # Safety
    /// `data` points to `len` zeroed elements, aligned, for as long as `owner` lives.
    pub(super) unsafe fn new(data: NonNull<T>, len: usize, owner: Box<dyn Any>) -> Self {
        Self { data, len, _owner: owner }
    }
}

impl Shared<u8> {
    /// `count` items of `size` bytes, which the host's ranks write together: each is given a range of items and as many
    /// bytes as they take.
    ///
    /// # Errors
    /// As [`Host::share_bytes`].
    pub fn written(
        host: &dyn Host,
        count: usize,
        size: usize,
        write: impl FnOnce(Range<usize>, &mut [u8]),
    ) -> Result<Self> {
        let mut shared = host.share_bytes(count * size)?;
        let mine = own(count, host.rank(), host.size());
        // SAFETY: each rank writes its own part, and none reads before the barrier below.
        write(mine.clone(), unsafe { shared.part_mut(mine.start * size..mine.end * size) });
        host.barrier();
        Ok(shared)
    }

    /// The same bytes as elements.
    pub(super) fn cast<T: Pod>(self) -> Shared<T> {
        let data = if self.len == 0 { NonNull::dangling() } else { self.data.cast::<T>() };
        assert!(data.is_aligned() && self.len.is_multiple_of(size_of::<T>()));
        Shared { data, len: self.len / size_of::<T>(), _owner: self._owner }
    }
}

impl<T> Shared<T> {
    /// A part, to be written.
    ///
    /// # Safety
    /// From the last barrier to the next no other rank reads or writes it.
    pub unsafe fn part_mut(&mut self, part: Range<usize>) -> &mut [T] {
        assert!(part.start <= part.end && part.end <= self.len, "{part:?} of {}", self.len);
        // SAFETY: in bounds; in this process `self` is borrowed, in others the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr().add(part.start), part.len()) }
    }

    /// Two parts at once, to be written.
    ///
    /// # Safety
    /// As for [`Shared::part_mut`].
    pub unsafe fn parts_mut(&mut self, first: Range<usize>, second: Range<usize>) -> [&mut [T]; 2] {
        assert!(first.end <= second.start || second.end <= first.start, "{first:?} and {second:?} overlap");
        assert!(first.start <= first.end && first.end <= self.len, "{first:?} of {}", self.len);
        assert!(second.start <= second.end && second.end <= self.len, "{second:?} of {}", self.len);
        // SAFETY: in bounds and disjoint; otherwise as above.
        unsafe {
            [first, second].map(|part| std::slice::from_raw_parts_mut(self.data.as_ptr().add(part.start), part.len()))
        }
    }
}

/// Numbers that the ranks of a host may change at any time, each on a cache line of its own.
pub struct Atomics(Shared<u32>);

impl Atomics {
    /// Elements from one number to the next.
    const APART: usize = 16;

    /// The shared elements that `count` numbers take.
    pub const fn elements(count: usize) -> usize {
        Self::APART * count
    }

    /// Of this rank alone.
    pub fn private(count: usize) -> Self {
        Self(Shared::private(Self::elements(count)))
    }

    /// In memory that ranks give to nothing else.
    pub fn within(memory: Shared<u32>) -> Self {
        Self(memory)
    }

    /// The number `index`.
    pub fn at(&self, index: usize) -> &AtomicU32 {
        assert!(Self::elements(index) < self.0.len());
        // SAFETY: the element is within, aligned, lives as long as `self`, and is touched in this way only.
        unsafe { AtomicU32::from_ptr(self.0.data.as_ptr().add(Self::elements(index))) }
    }
}

impl<T> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialised elements; whoever writes does so between barriers that readers keep.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}
