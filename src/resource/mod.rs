//! What the machine can give: memory for a size that a job asks for, and files that can be read to an end.

pub mod contain;
pub mod cpu;
pub mod memory;

use crate::error::{Error, Result};
use std::fs::File;
use std::path::Path;

/// Refuses a need for `bytes` of memory that this rank's share of the free memory does not cover, before an allocation
/// ends the process. Where the system does not tell, only absurd sizes are refused.
///
/// # Errors
/// `Usage` at `place`, with both sizes.
pub fn require_memory(place: &str, bytes: f64, mend: &str) -> Result<()> {
    memory::ask(bytes).map_err(|shortage| Error::usage(place, shortage.to_string(), mend))
}

/// This host's name.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Opens a regular file. Anything else is refused before it is opened: a pipe would block, a device has no end.
///
/// # Errors
/// `Io` with `mend` if there is no such file, it may not be read, or it is a folder, a pipe or a device.
pub fn open_file(path: &Path, mend: &str) -> Result<File> {
    let failed = |e: std::io::Error| Error::io(path, format!("cannot read: {e}"), mend);
    let kind = std::fs::metadata(path).map_err(failed)?;
    if !kind.is_file() {
        let what = if kind.is_dir() { "it is a folder" } else { "it is not a regular file" };
        return Err(Error::io(path, format!("cannot read: {what}"), mend));
    }
    File::open(path).map_err(failed)
}

/// Tells the system that a part of a file will be read soon; it then reads ahead. What comes of it is no matter.
pub fn will_read(file: &File, first: u64, bytes: usize) {
    if let Some(bytes) = std::num::NonZeroU64::new(bytes as u64) {
        let _ = rustix::fs::fadvise(file, first, Some(bytes), rustix::fs::Advice::WillNeed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_sizes_are_refused_and_small_ones_not() {
        require_memory("layer", 1e6, "").unwrap();
        for bytes in [1e16, 1e30, f64::INFINITY] {
            let error = require_memory("layer 3", bytes, "use less").unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            assert!(text.starts_with("layer 3: needs") && text.ends_with("use less"), "{text}");
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [dir.path(), &pipe, Path::new("/dev/zero"), &dir.path().join("none")] {
            let error = open_file(path, "give a file").unwrap_err();
            assert_eq!(error.exit_code(), 74);
            assert!(error.to_string().contains("give a file"), "{error}");
        }
    }
}
