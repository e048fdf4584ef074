//! HDF5 files made in memory. The library drops errors of writes that it puts off until a file is closed; so it gets no file to
//! write to, and its bytes are written by [`atomic`](super::atomic), which drops none.

use hdf5::File;
use hdf5::sync::sync;
use hdf5_sys::h5f::H5Fget_vfd_handle;
use hdf5_sys::h5p::H5P_DEFAULT;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes by which a file in memory grows; it ends with up to as many zeros.
const GROWTH: usize = 4096;

/// An HDF5 file in memory, complete.
pub(super) struct Image(File);

impl Image {
    /// What `fill` makes of an empty file, behind `room` bytes of zeros (0, or a power of two from 512 on).
    pub(super) fn make(room: usize, fill: impl FnOnce(&File) -> hdf5::Result<()>) -> hdf5::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // Nothing of that name is opened, but the library takes two files of one name for the same.
        let name = format!("ddl-in-memory-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut options = File::with_options();
        options.with_fapl(|fapl| fapl.core_options(GROWTH, false));
        let file = options.with_fcpl(|fcpl| fcpl.userblock(room as u64)).create(name)?;
        fill(&file)?;
        file.flush()?;
        Ok(Self(file))
    }

    /// The whole file.
    ///
    /// # Errors
    /// The library does not tell where it is.
    pub(super) fn bytes(&self) -> hdf5::Result<&[u8]> {
        let mut at = null_mut::<c_void>();
        // SAFETY: the file is open, and the out-pointer is live for the call.
        let code = sync(|| unsafe { H5Fget_vfd_handle(self.0.id(), H5P_DEFAULT, &mut at) });
        // SAFETY: the handle of a file in memory is the address of the pointer to its first byte.
        let first = if code < 0 || at.is_null() { null_mut() } else { unsafe { *at.cast::<*mut u8>() } };
        let len = usize::try_from(self.0.size()).unwrap_or(0);
        if first.is_null() || len == 0 {
            return Err("the file in memory cannot be reached".into());
        }
        // SAFETY: as many bytes are there until the file is changed or closed, which `self` is borrowed against.
        Ok(unsafe { std::slice::from_raw_parts(first, len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_in_memory_reads_back_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        for room in [0, 512, 1024] {
            let values: Vec<f64> = (0..100_000).map(f64::from).collect();
            let fill = |file: &File| file.new_dataset_builder().with_data(&values).create("group/values").map(|_| ());
            let image = Image::make(room, fill).unwrap();
            let bytes = image.bytes().unwrap();
            assert!(bytes[..room].iter().all(|&byte| byte == 0));
            let path = dir.path().join("a.h5");
            std::fs::write(&path, bytes).unwrap();
            let file = File::open(&path).unwrap();
            assert_eq!(file.dataset("group/values").unwrap().read_raw::<f64>().unwrap(), values);
        }
    }
}
