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
    let mend = "give runs, checkpoints, HDF5 or safetensors files, or folders with them";
    Err(Error::data(path.display().to_string(), "of no kind that can be checked", mend))
}

/// The files of a run's folder that can be checked: what lies in it and in its `checkpoints`, in order.
///
/// # Errors
/// `Io` if a folder cannot be read.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [folder.to_path_buf(), folder.join("checkpoints")] {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !found.is_empty() => continue,
            Err(e) => return Err(Error::io(&folder, format!("cannot read: {e}"), "check the path")),
        };
        let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let known = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "h5" || ending == "safetensors");
        found.extend(files.filter(known));
    }
    found.sort();
    Ok(found)
}
