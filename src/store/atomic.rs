//! Files that are whole or absent: written under a temporary name in the same folder, synced, renamed.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What follows a file's name while it is being written.
pub(super) const TEMPORARY: &str = ".tmp";

const MEND: &str = "check that the folder exists, may be written and has free space";

/// A file on its way to replace `path`. Dropped before [`commit`](Self::commit), it vanishes and `path` stays as it was.
pub(super) struct Replacement {
    path: PathBuf,
    temporary: PathBuf,
    renamed: bool,
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
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, format!("cannot create the folder: {e}"), MEND))?;
        let mut temporary = name.to_os_string();
        temporary.push(TEMPORARY);
        let temporary = path.with_file_name(temporary);
        File::create(&temporary).map_err(|e| Error::io(&temporary, format!("cannot create the file: {e}"), MEND))?;
        Ok(Self { path: path.to_path_buf(), temporary, renamed: false })
    }

    /// Where to write.
    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Syncs the file, renames it and syncs the folder.
    ///
    /// # Errors
    /// `Io`; the temporary file is removed then.
    pub(super) fn commit(self) -> Result<()> {
        let path = self.path.clone();
        File::open(&self.temporary)
            .and_then(|f| f.sync_all())
            .map_err(|e| Error::io(&path, format!("cannot sync the file: {e}"), MEND))?;
        self.commit_unsynced()?;
        // The rename itself is on disk only when the folder is. Some network file systems cannot sync a folder.
        if let Ok(folder) = File::open(folder_of(&path))
            && let Err(e) = folder.sync_all()
        {
            log::debug!("{}: cannot sync the folder: {e}", path.display());
        }
        Ok(())
    }

    /// Renames the file: safe against a kill, but a power failure may bring back the older file, or an empty one.
    ///
    /// # Errors
    /// `Io`; the temporary file is removed then.
    pub(super) fn commit_unsynced(mut self) -> Result<()> {
        fs::rename(&self.temporary, &self.path)
            .map_err(|e| Error::io(&self.path, format!("cannot rename the finished file: {e}"), MEND))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// The folder of a path, `.` for a bare name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Replaces `path` by `bytes`.
///
/// # Errors
/// `Io`; the older file is untouched then.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = Replacement::new(path)?;
    fs::write(file.temporary(), bytes).map_err(|e| Error::io(path, format!("cannot write: {e}"), MEND))?;
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
        let half = Replacement::new(&path).unwrap();
        fs::write(half.temporary(), b"ne").unwrap();
        drop(half);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
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
