//! Files that are whole or absent: written under a temporary name in the same folder, synced, read back, renamed.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// What follows a file's name while it is being written.
pub(super) const TEMPORARY: &str = ".tmp";

const MEND: &str = "check that the folder exists, may be written and has free space";

/// A file on its way to replace `path`. Dropped before [`commit`](Self::commit), it vanishes and `path` stays as it was.
pub(super) struct Replacement {
    path: PathBuf,
    temporary: PathBuf,
    /// None once it is renamed.
    file: Option<BufWriter<Checked>>,
}

/// A file that knows the checksum of what it was given.
struct Checked {
    file: File,
    digest: crc32fast::Hasher,
    len: u64,
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Replacement {
    /// Creates the folder and an empty temporary file in it. The name is always the same, so that one left over from
    /// a killed process is overwritten.
    ///
    /// # Errors
    /// `Io` when the folder cannot be made or written to, or `path` is a folder.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(Error::io(path, "not a file name", "give the path of a file"));
        };
        if path.is_dir() {
            return Err(Error::io(path, "cannot write a file here: it is a folder", "give the path of a file"));
        }
        let folder = folder_of(path);
        make_folder(folder).map_err(|e| Error::io(folder, format!("cannot create the folder: {e}"), MEND))?;
        let mut temporary = name.to_os_string();
        temporary.push(TEMPORARY);
        let temporary = path.with_file_name(temporary);
        let file =
            File::create(&temporary).map_err(|e| Error::io(path, format!("cannot create the file: {e}"), MEND))?;
        let file = Checked { file, digest: crc32fast::Hasher::new(), len: 0 };
        Ok(Self { path: path.to_path_buf(), temporary, file: Some(BufWriter::with_capacity(1 << 16, file)) })
    }

    /// Syncs the file, reads it back, renames it and syncs the folder: until it is surely whole, the older one stays.
    ///
    /// # Errors
    /// `Io`; the temporary file is removed then.
    pub(super) fn commit(mut self) -> Result<()> {
        let failed = |what: &str, e: io::Error| Error::io(&self.path, format!("cannot {what} the file: {e}"), MEND);
        let Some(file) = &mut self.file else { return Ok(()) };
        file.flush().map_err(|e| failed("write", e))?;
        let Checked { file, digest, len } = file.get_ref();
        file.sync_all().map_err(|e| failed("sync", e))?;
        let (expected, len) = (digest.clone().finalize(), *len);
        let found = checksum(&self.temporary).map_err(|e| failed("read back", e))?;
        if found != (expected, len) {
            let what = format!("what was written ({len} bytes) is not what reads back ({} bytes)", found.1);
            return Err(Error::io(&self.path, what, "check the disk"));
        }
        fs::rename(&self.temporary, &self.path).map_err(|e| failed("rename", e))?;
        self.file = None;
        sync_folder(folder_of(&self.path)).map_err(|e| failed("sync the folder of", e))
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.flush())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What is not written yet need not be.
            let _ = file.into_parts();
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// The checksum and length of a file.
fn checksum(path: &Path) -> io::Result<(u32, u64)> {
    let (mut file, mut digest, mut len) = (File::open(path)?, crc32fast::Hasher::new(), 0);
    let mut piece = vec![0; 1 << 18];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok((digest.finalize(), len)),
            Ok(read) => {
                digest.update(&piece[..read]);
                len += read as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Makes a folder and those above it. Each name is synced, since what is synced in a folder is lost with the folder's own name.
///
/// # Errors
/// That of the system.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder_of(folder);
    if parent != folder {
        make_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is a file, no folder", folder.display())))
        }
        Err(e) => Err(e),
        Ok(()) => match sync_folder(parent) {
            // One that may be written to and not be read cannot be synced.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            ended => ended,
        },
    }
}

/// A rename is on disk only when its folder is. Some network file systems cannot sync a folder, which is no failure.
///
/// # Errors
/// That of the system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|file| file.sync_all()) {
        Err(e) if [io::ErrorKind::Unsupported, io::ErrorKind::InvalidInput].contains(&e.kind()) => Ok(()),
        ended => ended,
    }
}

/// The folder of a path, `.` for a bare name.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Replaces `path` by `bytes`.
///
/// # Errors
/// `Io`; the older file is untouched then.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_parts(path, &[bytes])
}

/// Replaces `path` by several pieces, one after the other.
///
/// # Errors
/// As [`write`].
pub(super) fn write_parts(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let mut file = Replacement::new(path)?;
    for part in parts {
        file.write_all(part).map_err(|e| Error::io(path, format!("cannot write: {e}"), MEND))?;
    }
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uncommitted_file_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.txt");
        write(&path, b"old").unwrap();
        let mut half = Replacement::new(&path).unwrap();
        half.write_all(&vec![b'n'; 1 << 20]).unwrap();
        drop(half);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    /// A disk that drops a write, as seen by whoever reads it back.
    #[test]
    fn what_does_not_read_back_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"old").unwrap();
        let mut file = Replacement::new(&path).unwrap();
        file.write_all(b"new and longer").unwrap();
        file.flush().unwrap();
        fs::write(dir.path().join("a.tmp"), b"new and lo\0\0\0\0").unwrap();
        let error = file.commit().unwrap_err();
        assert!(error.exit_code() == 74 && error.to_string().contains("reads back"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_in_place_of_the_folder_is_an_io_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"x").unwrap();
        let error = write(&file.join("b.txt"), b"y").unwrap_err();
        assert_eq!(error.exit_code(), 74);
        assert_eq!(write(dir.path(), b"y").unwrap_err().exit_code(), 74);
    }
}
