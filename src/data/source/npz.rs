//! `npz`: arrays as numpy writes them: `savez` or `savez_compressed` several to a file, `save` each to a file of its own.

use super::Source;
use super::array::{self, ArrayFile, KEYS, Keys};
use super::array_inputs;
use crate::config::Normalize;
use crate::config::data::NormalizeMethod;
use crate::data::format::{Cut, RowStream, file, files, npy};
use crate::error::{Error, Result};
use crate::resource::open_file;
use crate::store::rows::Rows;
use crate::store::table::Array;
use crc32fast::Hasher;
use flate2::bufread::DeflateDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use zip::read::ZipFile;
use zip::{CompressionMethod, ZipArchive};

pub(super) const SOURCE: Source = Source {
    name: "npz",
    doc: "numpy's .npz, or a folder of .npy files (x_train.npy, ...): images (N, C, H, W), sequences (N, T, F) or rows (N, F); \
          integer targets are classes",
    keys: KEYS,
    open: |config, seed| {
        let path = super::path(config)?;
        array::open(config, seed, path, &mut *open(path)?)
    },
    open_inputs: |trained, config, path| array_inputs::open(trained, config, path, &mut *open(path)?),
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Named(NormalizeMethod::None),
};

/// An archive, a folder of arrays, or one array, which is known by its first bytes or its name.
fn open(path: &Path) -> Result<Box<dyn ArrayFile>> {
    if path.is_dir() {
        return Ok(Box::new(Npy::folder(path)?));
    }
    let start = file::read_up_to(&mut open_file(path, "check data.path")?, path, npy::MAGIC.len() as u64)?;
    Ok(if start == npy::MAGIC || files::ends(path, &[ENDING]) {
        Box::new(Npy::one(path))
    } else {
        Box::new(Npz::open(path)?)
    })
}

const ENDING: &str = ".npy";

/// `x_train` of `x_train.npy`.
fn stem(name: &str) -> &str {
    name.strip_suffix(ENDING).unwrap_or(name)
}

struct Npz {
    path: PathBuf,
    names: Vec<String>,
    archive: ZipArchive<BufReader<File>>,
}

impl Npz {
    fn open(path: &Path) -> Result<Self> {
        let file = open_file(path, "check data.path")?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|e| {
            let mend = "give a whole file of numpy.savez or savez_compressed";
            Error::data(path.display().to_string(), format!("not an .npz file: {e}"), mend)
        })?;
        let mut names: Vec<String> = archive.file_names().map(|name| stem(name).to_owned()).collect();
        names.sort();
        Ok(Self { path: path.to_owned(), names, archive })
    }

    fn place(&self, name: &str) -> String {
        format!("{}, array {name}", self.path.display())
    }

    fn entry(&mut self, name: &str) -> Result<ZipFile<'_, BufReader<File>>> {
        let place = self.place(name);
        let entry = format!("{name}{ENDING}");
        let entry = if self.archive.index_for_name(&entry).is_some() { &entry } else { name };
        self.archive.by_name(entry).map_err(|e| {
            let mend = "the file is damaged or no array of numbers; write it anew with numpy.savez";
            Error::data(&place, e.to_string(), mend)
        })
    }
}

impl ArrayFile for Npz {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn missing(&self, name: &str) -> (String, String) {
        array::no_such(name, &self.names)
    }

    fn read(&mut self, name: &str) -> Result<Array> {
        let place = self.place(name);
        npy::read(&mut self.entry(name)?, &place)
    }

    fn length(&mut self, name: &str) -> Option<usize> {
        npy::length(&mut self.entry(name).ok()?)
    }

    fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        let place = self.place(name);
        npy::texts(&mut self.entry(name)?, &place)
    }

    fn stream(&mut self, name: &str) -> Result<Box<dyn RowStream>> {
        let entry = self.entry(name)?;
        let (start, len, packed, checksum) =
            (entry.data_start(), entry.compressed_size(), entry.compression(), entry.crc32());
        drop(entry);
        let mut file = open_file(&self.path, "check data.path")?;
        file.seek(SeekFrom::Start(start)).map_err(|e| file::read_error(&self.path, &e))?;
        let bytes = BufReader::with_capacity(1 << 18, file).take(len);
        let reader: Box<dyn Read> = match packed {
            CompressionMethod::Stored => Box::new(bytes),
            CompressionMethod::Deflated => Box::new(DeflateDecoder::new(bytes)),
            _ => return Ok(Box::new(Cut::new(self.read(name)?))),
        };
        npy::stream(Box::new(Summed { reader, digest: Hasher::new(), checksum }), &self.place(name))
    }
}

/// A file in an archive, whose checksum is compared at its end.
struct Summed {
    reader: Box<dyn Read>,
    digest: Hasher,
    checksum: u32,
}

impl Read for Summed {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(to)?;
        self.digest.update(&to[..read]);
        if read == 0 && !to.is_empty() && self.digest.clone().finalize() != self.checksum {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "Invalid checksum"));
        }
        Ok(read)
    }
}

/// Arrays in files of their own.
struct Npy {
    /// Where they are; None for a single one.
    folder: Option<PathBuf>,
    names: Vec<String>,
    files: Vec<PathBuf>,
}

impl Npy {
    /// All in a folder.
    fn folder(path: &Path) -> Result<Self> {
        let mut files = files::list(path)?;
        files.retain(|file| file.is_file() && files::ends(file, &[ENDING]));
        let names = files.iter().map(|file| Self::name(file)).collect();
        Ok(Self { folder: Some(path.to_owned()), names, files })
    }

    fn one(path: &Path) -> Self {
        Self { folder: None, names: vec![Self::name(path)], files: vec![path.to_owned()] }
    }

    fn name(file: &Path) -> String {
        stem(&file.file_name().unwrap_or_default().to_string_lossy()).to_owned()
    }

    /// The file of an array: one of those that were found, or one that a job names by its path from the folder.
    fn file(&self, name: &str) -> Option<PathBuf> {
        if let Some(at) = self.names.iter().position(|known| known == stem(name)) {
            return Some(self.files[at].clone());
        }
        let file = self.folder.as_ref()?.join(format!("{}{ENDING}", stem(name)));
        file.is_file().then_some(file)
    }

    fn open(&self, name: &str) -> Result<(PathBuf, BufReader<File>)> {
        let Some(path) = self.file(name) else {
            let (what, mend) = self.missing(name);
            return Err(Error::usage("data.arrays", what, mend));
        };
        let file = BufReader::with_capacity(1 << 18, open_file(&path, "check data.path")?);
        Ok((path, file))
    }
}

impl ArrayFile for Npy {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn has(&self, name: &str) -> bool {
        self.file(name).is_some()
    }

    fn missing(&self, name: &str) -> (String, String) {
        if self.folder.is_none() {
            let what = format!("no array \"{}\": a .npy file holds one array", stem(name));
            let mend =
                "set data.path to the folder of x_train.npy and y_train.npy, or name the files there in data.arrays";
            return (what, mend.into());
        }
        if self.names.is_empty() {
            let mend = "set data.path to a folder with x_train.npy and y_train.npy, or to an .npz file";
            return (format!("no {name}.npy in the folder"), mend.into());
        }
        array::no_such(name, &self.names)
    }

    fn rows(&mut self, name: &str) -> Result<Option<Rows>> {
        let Some(path) = self.file(name) else { return Ok(None) };
        Ok(npy::rows(&path, open_file(&path, "check data.path")?))
    }

    fn read(&mut self, name: &str) -> Result<Array> {
        let (path, mut file) = self.open(name)?;
        npy::read(&mut file, &path.display().to_string())
    }

    fn length(&mut self, name: &str) -> Option<usize> {
        npy::length(&mut self.open(name).ok()?.1)
    }

    fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        let (path, mut file) = self.open(name)?;
        npy::texts(&mut file, &path.display().to_string())
    }

    fn stream(&mut self, name: &str) -> Result<Box<dyn RowStream>> {
        let (path, file) = self.open(name)?;
        npy::stream(Box::new(file), &path.display().to_string())
    }
}
