//! Memory that one process makes and others of its host map. Its pages are reserved before they are used: a host that has no
//! more of them says so, where a page that is missing later would end the process (SIGBUS).

use crate::resource::host_name;
use rustix::fs::{self, FallocateFlags, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use serde::{Deserialize, Serialize};
use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the memory is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file without a name, which others open in /proc: no limit but that of memory, and nothing is left of it.
    Nameless,
    /// A file in /dev/shm until all have it: for ranks that do not see each other's processes, such as in containers.
    Named,
}

/// What others need to open the memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    path: String,
    /// Tells it from another process's file that has the same path elsewhere.
    inode: (u64, u64),
    len: usize,
}

/// A process's handle of such memory.
pub(super) struct Segment {
    file: OwnedFd,
    len: usize,
}

impl Segment {
    /// New memory of `len` bytes, of which nothing is reserved yet.
    pub fn create(kind: Kind, len: usize) -> Result<(Self, Place), Errno> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let process = std::process::id();
        let (file, path) = match kind {
            Kind::Nameless => {
                let file = fs::memfd_create("ddl", MemfdFlags::CLOEXEC)?;
                let path = format!("/proc/{process}/fd/{}", file.as_raw_fd());
                (file, path)
            }
            Kind::Named => {
                let number = COUNT.fetch_add(1, Ordering::Relaxed);
                let path = format!("/dev/shm/ddl.{}.{process}.{number}", host_name());
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                (fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?, path)
            }
        };
        let made = fs::ftruncate(&file, len as u64).and_then(|()| fs::fstat(&file));
        let place = |inode| Place { path, inode, len };
        match made {
            Ok(stat) => Ok((Self { file, len }, place((stat.st_dev, stat.st_ino)))),
            Err(error) => {
                place((0, 0)).forget();
                Err(error)
            }
        }
    }

    /// The memory that another process has made.
    pub fn open(place: &Place) -> Result<Self, Errno> {
        let file = fs::open(&place.path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fs::fstat(&file)?;
        match (stat.st_dev, stat.st_ino) == place.inode {
            true => Ok(Self { file, len: place.len }),
            false => Err(Errno::NOENT),
        }
    }

    /// Reserves pages, which then lie near this process's CPU.
    pub fn reserve(&self, part: Range<usize>) -> Result<(), Errno> {
        if part.is_empty() {
            return Ok(());
        }
        loop {
            match fs::fallocate(&self.file, FallocateFlags::empty(), part.start as u64, part.len() as u64) {
                Err(Errno::INTR) => {}
                reserved => return reserved,
            }
        }
    }

    /// The memory, which is there for as long as the mapping is. All of it must have been reserved before any is touched.
    pub fn map(self) -> Result<Mapping, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at a place that the system chooses.
        let at = unsafe { mmap(null_mut(), self.len, access, MapFlags::SHARED, &self.file, 0)? };
        let start = NonNull::new(at.cast()).ok_or(Errno::NOMEM)?;
        // SAFETY: advice on this mapping. Where the system gives no huge pages to shared memory, nothing changes.
        let _ = unsafe { madvise(at, self.len, Advice::LinuxHugepage) };
        Ok(Mapping { start, len: self.len })
    }
}

impl Place {
    /// Takes the name away, if it has one: what is open stays.
    pub fn forget(&self) {
        if self.path.starts_with("/dev/shm/") {
            let _ = fs::unlink(&self.path);
        }
    }
}

/// Mapped memory.
pub(super) struct Mapping {
    pub start: NonNull<u8>,
    len: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and unmapped once.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_handles_see_one_memory_and_nothing_is_left() {
        for kind in [Kind::Nameless, Kind::Named] {
            let (made, place) = Segment::create(kind, 10_000).unwrap();
            let opened = Segment::open(&place).unwrap();
            made.reserve(0..4096).unwrap();
            opened.reserve(4096..10_000).unwrap();
            place.forget();
            let (made, opened) = (made.map().unwrap(), opened.map().unwrap());
            for at in [0, 4095, 9_999] {
                // SAFETY: both mappings have 10,000 bytes that nobody else uses.
                unsafe {
                    assert_eq!(opened.start.add(at).read(), 0);
                    made.start.add(at).write(7);
                    assert_eq!(opened.start.add(at).read(), 7, "{kind:?}");
                }
            }
            drop(made);
            assert!(Segment::open(&place).is_err(), "{kind:?} is left");
        }
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let (segment, place) = Segment::create(Kind::Nameless, 4096).unwrap();
        // Another file under the same path.
        let other = Place { inode: (place.inode.0, place.inode.1 + 1), ..place.clone() };
        assert!(Segment::open(&other).is_err());
        // Beyond what a file can have: refused, and no SIGBUS.
        assert!(segment.reserve(1 << 62..(1 << 63) + 4096).is_err());
        assert!(Segment::create(Kind::Named, usize::MAX).is_err());
    }
}
