//! Whether files are whole.

use super::seal::{Kind, kind_of};
use super::{checkpoint, hdf, probe, read_run, safetensors};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// What a file that can be read to its end is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// Its checksums or its structure tell that nothing is missing.
    Whole(String),
    /// It opens; more cannot be told.
    Opens(String),
}

/// Whether a file begins as a checkpoint does.
///
/// # Errors
/// `Io` if it cannot be read.
pub fn is_checkpoint(path: &Path) -> Result<bool> {
    Ok(kind_of(path)?.0 == Some(Kind::Checkpoint))
}

/// Reads a file to its end as whoever uses it would, and says what it is.
///
/// # Errors
/// `Io` if it cannot be read, `Data` if it is damaged or of a kind that cannot be checked.
pub fn verify(path: &Path) -> Result<Verified> {
    let (kind, start) = kind_of(path)?;
    match kind {
        Some(Kind::Checkpoint) => {
            let found = checkpoint::read(path)?;
            return Ok(Verified::Whole(format!("checkpoint of step {}", found.step)));
        }
        Some(Kind::Run) => {
            let run = read_run(path)?;
            let epochs = run.epochs.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
            let status = run.attribute("status").unwrap_or("of no status");
            return Ok(Verified::Whole(format!("run, {status}, {epochs} epochs")));
        }
        None => {}
    }
    if path.extension().is_some_and(|ending| ending == "safetensors") {
        return Ok(Verified::Whole(format!("safetensors, {} tensors", safetensors::read(path)?.len())));
    }
    if start.starts_with(b"\x89HDF\r\n\x1a\n") {
        probe::survives(path)?;
        hdf::open(path)?;
        return Ok(Verified::Opens("HDF5 without a checksum".into()));
    }
    // Whatever is called so and begins otherwise has lost its beginning.
    if path.extension().is_some_and(|ending| ending == "h5" || ending == "hdf5") {
        let mend = "it is damaged or of another kind: use another file";
        return Err(Error::data(path.display().to_string(), "it does not begin as an HDF5 file", mend));
    }
    Ok(Verified::Opens("of no kind that can be checked".into()))
}

/// Folders within one another, at most.
const MOST_DEEP: usize = 5;

/// The files that can be checked in a folder and the folders in it, such as a run's or one of many runs, in order.
///
/// # Errors
/// `Io` if a folder cannot be read.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut waiting) = (Vec::new(), vec![(folder.to_path_buf(), 0)]);
    while let Some((folder, depth)) = waiting.pop() {
        let unread = |e: std::io::Error| Error::io(&folder, format!("cannot read: {e}"), "check the path");
        for entry in std::fs::read_dir(&folder).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(unread)?);
            if kind.is_dir() && depth < MOST_DEEP {
                waiting.push((path, depth + 1));
            } else if path.extension().is_some_and(|ending| ending == "h5" || ending == "safetensors") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
