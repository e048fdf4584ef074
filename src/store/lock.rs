//! One run a folder: a lock that dies with the process that holds it, and inputs that no output replaces.

use super::atomic::TEMPORARY;
use crate::error::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file in a run's folder that its process holds a lock on.
const NAME: &str = "run.lock";

/// How often the file may be gone when it is to be locked.
const ATTEMPTS: usize = 100;

/// A folder that only this process writes a run into, until this is dropped or the process ends, however it ends. The lock
/// is the kernel's (flock), which network file systems with locks share between hosts. NFS makes it a lock on bytes, for which
/// the file must be open for writing.
pub struct FolderLock {
    path: PathBuf,
    file: File,
}

impl FolderLock {
    /// Takes a folder, which must be there. Where the file system knows no locks, a warning says so.
    ///
    /// # Errors
    /// `Usage` if another process holds it, with what that says of itself; `Io` if the folder cannot be written to.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let failed = |e: std::io::Error| {
            Error::io(&path, format!("cannot be made: {e}"), "choose another folder with --out, or free it")
        };
        let mut gone = 0;
        loop {
            let file =
                File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(held(folder, file)),
                // On NFS: the holder before removed it meanwhile.
                Err(TryLockError::Error(e)) if e.raw_os_error() == Some(libc::ESTALE) && gone < ATTEMPTS => {
                    gone += 1;
                    continue;
                }
                Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => no_locks(&path, &e),
                Err(TryLockError::Error(e)) if e.raw_os_error() == Some(libc::ENOLCK) => no_locks(&path, &e),
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
            // The holder before may have removed the file between our opening it and locking it.
            if same(&path, &file.metadata().map_err(failed)?) {
                let mut lock = Self { path, file };
                // A word for whoever comes second; the lock does not need it. Synced, or NFS keeps it on this host.
                let told = lock.file.set_len(0).and_then(|()| lock.file.write_all(holder().as_bytes()));
                let _ = told.and_then(|()| lock.file.sync_data());
                return Ok(lock);
            }
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // While it is locked: nobody else holds it then.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

fn no_locks(path: &Path, error: &std::io::Error) {
    log::warn!("{}: this file system has no locks ({error}); see that no other run writes there", path.display());
}

/// What this process says of itself.
fn holder() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let since = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC");
    format!("process {} on {}, since {since}\n", std::process::id(), host.trim())
}

fn held(folder: &Path, mut file: File) -> Error {
    let mut text = String::new();
    let _ = Read::by_ref(&mut file).take(200).read_to_string(&mut text);
    let who = if text.trim().is_empty() { "another process".to_owned() } else { text.trim().to_owned() };
    let what = format!("another run writes into this folder ({who})");
    Error::usage(folder.display().to_string(), what, "wait for its end, or choose another folder with --out")
}

/// Removes what a run that was killed was writing in `folder`. To be called by whoever holds its lock.
///
/// # Errors
/// `Io` if a file cannot be removed.
pub fn remove_abandoned(folder: &Path) -> Result<()> {
    for folder in [folder, &folder.join("checkpoints")] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let of_run = name.starts_with("run.h5")
                || name.starts_with("run.journal")
                || name.starts_with("step-")
                || name.starts_with("best.h5");
            if of_run && name.ends_with(TEMPORARY) {
                fs::remove_file(&path).map_err(|e| {
                    Error::io(&path, format!("cannot remove what is left of a killed run: {e}"), "remove it")
                })?;
            }
        }
    }
    Ok(())
}

/// Refuses an output that is one of the inputs, by whatever name or link.
///
/// # Errors
/// `Usage`, with `flag` as the place.
pub fn protect<'a>(flag: &str, output: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let Ok(there) = fs::metadata(output) else { return Ok(()) };
    match inputs.into_iter().find(|input| same(input, &there)) {
        None => Ok(()),
        Some(input) => {
            let what = format!("is the input {}, which would be lost", input.display());
            Err(Error::usage(format!("{flag} {}", output.display()), what, "choose another name"))
        }
    }
}

/// Whether a path leads to this very file.
fn same(path: &Path, file: &fs::Metadata) -> bool {
    fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(dir.path()).unwrap();
        let error = FolderLock::take(dir.path()).err().unwrap();
        let who = format!("process {} on ", std::process::id());
        assert!(error.exit_code() == 2 && error.to_string().contains(&who), "{error}");
        drop(lock);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        // What a killed process leaves holds nobody up.
        fs::write(dir.path().join(NAME), "process 1 on nowhere").unwrap();
        drop(FolderLock::take(dir.path()).unwrap());
        assert_eq!(FolderLock::take(&dir.path().join("none")).err().unwrap().exit_code(), 74);
    }

    /// NFS gives no lock that excludes others on a file that is open for reading only (EBADF).
    #[test]
    fn the_locked_file_is_open_for_writing() {
        let dir = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(dir.path()).unwrap();
        let flags = rustix::fs::fcntl_getfl(&lock.file).unwrap();
        assert!(flags.contains(rustix::fs::OFlags::RDWR), "{flags:?}");
        assert!(fs::read_to_string(dir.path().join(NAME)).unwrap().starts_with("process "));
    }

    #[test]
    fn an_input_is_known_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("in"), "x").unwrap();
        fs::hard_link(at("in"), at("hard")).unwrap();
        std::os::unix::fs::symlink("in", at("soft")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        for name in ["in", "hard", "soft", "folder/../in", "./soft"] {
            let error = protect("--out", &at(name), [at("other").as_path(), &at("in")]).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("is the input"), "{error}");
        }
        fs::write(at("out"), "y").unwrap();
        protect("--out", &at("out"), [at("in").as_path()]).unwrap();
        protect("--out", &at("new"), [at("in").as_path()]).unwrap();
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("checkpoints")).unwrap();
        let names = ["run.h5.tmp", "run.journal.tmp", "mine.tmp", "run.h5", "checkpoints/step-00000004.h5.tmp"];
        names.iter().for_each(|name| fs::write(dir.path().join(name), "x").unwrap());
        remove_abandoned(dir.path()).unwrap();
        let left: Vec<bool> = names.iter().map(|name| dir.path().join(name).exists()).collect();
        assert_eq!(left, [false, false, true, true, false]);
    }
}
