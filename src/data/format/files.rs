//! Which files a path means: one file, those in a folder, or those of a pattern such as `part-*.parquet`.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The files that `path` means, sorted by name. Of a folder those whose names end in one of `endings`.
pub fn files(path: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    if path.is_dir() {
        let mut found = list(path)?;
        found.retain(|file| file.is_file() && ends(file, endings));
        if found.is_empty() {
            let what = format!("no file in it ends in {}", endings.join(" or "));
            return Err(Error::io(path, what, "set data.path to a file, a folder or a pattern"));
        }
        return Ok(found);
    }
    let text = path.to_string_lossy();
    if path.exists() || !text.contains(['*', '?', '[']) {
        return Ok(vec![path.to_owned()]);
    }
    let pattern =
        glob::glob(&text).map_err(|e| Error::io(path, format!("no pattern: {}", e.msg), "correct data.path"))?;
    let mut found = Vec::new();
    for file in pattern {
        found.push(file.map_err(|e| Error::io(e.path(), e.error(), "check data.path"))?);
    }
    if found.is_empty() {
        return Err(Error::io(path, "no file has such a name", "correct the pattern in data.path"));
    }
    found.sort();
    Ok(found)
}

/// What is in a folder, sorted by name; names that begin with a dot are passed over.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut found = crate::data::format::file::list(folder)?;
    found.retain(|path| !hidden(path));
    Ok(found)
}

/// Whether a name ends in one of `endings`, in whatever case, or is a shard of such a one: `x.tfrecord-00000-of-00010`.
pub fn ends(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().map_or(String::new(), |name| name.to_string_lossy().to_ascii_lowercase());
    endings.iter().any(|ending| name.ends_with(ending) || name.contains(&format!("{ending}-")))
}
