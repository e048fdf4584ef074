//! Records of CIFAR-100's binary version, and batches of the python versions of both: images (3, 32, 32) and their labels.

use super::pickle::Pickle;
use super::{damaged, reserve};
use crate::data::format::file;
use crate::error::{Error, Result};
use crate::resource::open_file;
use crate::store::table::Values;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of an image.
pub const IMAGE_BYTES: usize = 3072;
/// And of a record of CIFAR-100.
pub const RECORD: usize = IMAGE_BYTES + 2;

/// Named files of a set: in its folder, the folder in that, or a .tar.gz.
pub struct Members {
    path: PathBuf,
    found: HashMap<String, Vec<u8>>,
}

impl Members {
    /// Reads those of `names` that are there.
    pub fn open(path: &Path, names: &[&str], inner: &str) -> Result<Self> {
        let mut members = Self { path: path.to_owned(), found: HashMap::new() };
        if path.is_dir() {
            let folder = path.join(inner);
            let folder = if folder.is_dir() { &folder } else { path };
            for name in names {
                let file = folder.join(name);
                // A folder or a pipe of that name is met as what it is.
                if file.symlink_metadata().is_ok() {
                    let bytes = take(&mut open_file(&file, "check data.path")?, &file)?;
                    members.found.insert((*name).to_owned(), bytes);
                }
            }
            members.path = folder.to_owned();
            return Ok(members);
        }
        let broken = |e: std::io::Error| {
            let what = format!("it cannot be unpacked: {e}");
            Error::data(path.display().to_string(), what, "give the folder, or a whole .tar.gz as it was published")
        };
        let mut archive = tar::Archive::new(file::open(path)?);
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let name = entry.path().map_err(broken)?.file_name().map(|name| name.to_string_lossy().into_owned());
            if let Some(name) = name.filter(|name| names.contains(&name.as_str())) {
                let bytes = take(&mut entry, path)?;
                members.found.insert(name, bytes);
            }
        }
        Ok(members)
    }

    /// Whether a file is there.
    pub fn has(&self, name: &str) -> bool {
        self.found.contains_key(name)
    }

    /// A file's bytes.
    pub fn get(&self, name: &str) -> Result<&[u8]> {
        let mend = "set data.path to the folder as it was published, or to its .tar.gz";
        let missing = || Error::io(&self.place(name), "no such file", mend);
        self.found.get(name).map(Vec::as_slice).ok_or_else(missing)
    }

    /// Where a file is, for messages.
    pub fn place(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// All of a reader, asking for memory step by step.
fn take(reader: &mut dyn Read, path: &Path) -> Result<Vec<u8>> {
    const STEP: usize = 1 << 20;
    let mut bytes = Vec::new();
    loop {
        reserve(&mut bytes, STEP, path)?;
        let read = reader.take(STEP as u64).read_to_end(&mut bytes).map_err(|e| file::read_error(path, &e))?;
        if read == 0 {
            return Ok(bytes);
        }
    }
}

/// Hands the planes of each image in a python batch to `each`, with its label under `key`.
pub fn batch(bytes: &[u8], path: &Path, key: &str, each: &mut dyn FnMut(&[u8], i64) -> Result<()>) -> Result<()> {
    let pickle = Pickle::parse(bytes, path)?;
    let (images, labels) = (pickle.array(pickle.get("data")?)?, pickle.integers(pickle.get(key)?)?);
    let Values::U8(pixels) = images.values else {
        return Err(damaged(path, "data", "elements that are no uint8"));
    };
    if images.shape != [labels.len(), IMAGE_BYTES] {
        let what =
            format!("an array of {:?} for {} labels of images of {IMAGE_BYTES} bytes", images.shape, labels.len());
        return Err(damaged(path, "data", what));
    }
    pixels.chunks_exact(IMAGE_BYTES).zip(labels).try_for_each(|(image, label)| each(image, label))
}

/// Hands the planes of each image of CIFAR-100's records to `each`, with its label: a record is the coarse and the fine
/// label, one byte each, and the planes.
pub fn records(bytes: &[u8], path: &Path, coarse: bool, each: &mut dyn FnMut(&[u8], i64) -> Result<()>) -> Result<()> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        let what = format!("{} bytes are no whole number of records of {RECORD}", bytes.len());
        return Err(damaged(path, "byte 0", what));
    }
    let label = |record: &[u8]| i64::from(record[usize::from(!coarse)]);
    bytes.chunks_exact(RECORD).try_for_each(|record| each(&record[2..], label(record)))
}
