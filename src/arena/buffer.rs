//! An aligned, zeroed buffer; large ones ask for huge pages.

use bytemuck::Zeroable;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const CACHE_LINE: usize = 64;
const HUGE_PAGE: usize = 2 << 20;

/// A fixed-size slice on the heap, zeroed, aligned to a cache line, or to a huge page from 2 MiB on.
pub struct Buffer<T> {
    data: NonNull<T>,
    len: usize,
    owns: PhantomData<T>,
}

impl<T: Zeroable + Copy> Buffer<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let Some(layout) = Self::layout(len) else {
            return Self { data: NonNull::dangling(), len, owns: PhantomData };
        };
        let huge = layout.align() == HUGE_PAGE;
        // SAFETY: the layout has a size above zero. `alloc_zeroed` writes zeros where alignment is this large, and the advice
        // comes too late for pages that were written to.
        let pointer = unsafe { if huge { alloc(layout) } else { alloc_zeroed(layout) } };
        let Some(data) = NonNull::new(pointer.cast()) else { handle_alloc_error(layout) };
        if huge {
            // SAFETY: the range is ours; the advice changes nothing but page sizes, so its failure is harmless. All-zero
            // bytes are a valid T by `Zeroable`.
            unsafe {
                #[cfg(target_os = "linux")]
                libc::madvise(pointer.cast(), layout.size(), libc::MADV_HUGEPAGE);
                pointer.write_bytes(0, layout.size());
            }
        }
        Self { data, len, owns: PhantomData }
    }
}

impl<T> Buffer<T> {
    fn layout(len: usize) -> Option<Layout> {
        let bytes = len * size_of::<T>();
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { CACHE_LINE };
        (bytes > 0).then(|| Layout::from_size_align(bytes.next_multiple_of(CACHE_LINE), align).expect("buffer size"))
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated in `zeros` with this very layout; T is Copy there and needs no drop.
            unsafe { dealloc(self.data.as_ptr().cast(), layout) };
        }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `data` points to `len` initialised elements, or dangles with `len` 0 (or T of size 0).
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

// SAFETY: a Buffer owns its elements as a Box<[T]> does.
unsafe impl<T: Send> Send for Buffer<T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T: Zeroable + Copy> Default for Buffer<T> {
    fn default() -> Self {
        Self::zeros(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zero_and_aligned() {
        for len in [0, 1, 17, 1 << 20] {
            // Memory that is used again holds something else.
            Buffer::<f32>::zeros(len).fill(1.0);
            let mut buffer = Buffer::<f32>::zeros(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&v| v == 0.0));
            buffer.fill(2.0);
            let align = if len == 1 << 20 { HUGE_PAGE } else { CACHE_LINE };
            assert!(len == 0 || (buffer.as_ptr() as usize).is_multiple_of(align));
        }
    }
}
