//! The first 512 bytes of our HDF5 files (HDF5's user block, which its readers skip): a SHA-256 of all that follows.
//!
//! The HDF5 library may crash, loop or take any amount of memory on a damaged file. So the raw bytes are checked
//! before it sees them; this finds damage in HDF5's own structures and cut-off ends, too.

use super::atomic;
use crate::error::{Error, Result};
use crate::resource::open_file;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Size of the seal; HDF5 allows 512 and larger powers of two.
pub(super) const SEAL_BYTES: usize = 512;

/// What was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Checkpoint,
    Run,
}

impl Kind {
    /// The first line of the file.
    fn title(self) -> &'static str {
        match self {
            Kind::Checkpoint => "ddl checkpoint",
            Kind::Run => "ddl run",
        }
    }

    /// What a file that begins so claims to be.
    fn of(start: &[u8]) -> Option<Self> {
        [Kind::Checkpoint, Kind::Run].into_iter().find(|kind| start.starts_with(kind.title().as_bytes()))
    }
}

/// What a file claims to be, and its first bytes.
///
/// # Errors
/// `Io` if it cannot be read.
pub(super) fn kind_of(path: &Path) -> Result<(Option<Kind>, Vec<u8>)> {
    let mut start = Vec::new();
    let read = open_file(path, "check the path")?.take(16).read_to_end(&mut start);
    read.map_err(|e| Error::io(path, format!("cannot read: {e}"), "check the path"))?;
    Ok((Kind::of(&start), start))
}

/// Writes an HDF5 file that has room for its seal, sealed: `path` is whole or as it was.
///
/// # Errors
/// `Io`.
pub(super) fn write(path: &Path, kind: Kind, image: &[u8]) -> Result<()> {
    let body = &image[SEAL_BYTES.min(image.len())..];
    atomic::write_parts(path, &[&of_digest(kind, &Sha256::digest(body)), body])
}

/// Checks a file against its seal.
///
/// # Errors
/// `Io` if it cannot be read; `Data` if it is not sealed, damaged or cut off.
pub(super) fn verify(path: &Path, kind: Kind) -> Result<()> {
    let io = |e: std::io::Error| Error::io(path, format!("cannot read: {e}"), "check the path and the disk");
    let data = |what: &str| Error::data(path.display().to_string(), what, "use another file");
    let mut file = open_file(path, "give the path of a file")?;
    let mut seal = Vec::with_capacity(SEAL_BYTES);
    Read::by_ref(&mut file).take(SEAL_BYTES as u64).read_to_end(&mut seal).map_err(io)?;
    if Kind::of(&seal) != Some(kind) {
        let title = kind.title();
        return Err(data(&match seal.as_slice() {
            [] => "the file is empty".to_string(),
            s if s.starts_with(b"\x89HDF\r\n\x1a\n") => {
                format!("an HDF5 file without the seal (checksum) of a {title}")
            }
            _ => format!("not a {title}: it does not begin with its seal"),
        }));
    }
    if seal.len() < SEAL_BYTES {
        return Err(data(&format!("cut off at byte {}", seal.len())));
    }
    if expected(&mut file, kind).map_err(io)? != seal {
        return Err(data("the checksum over the whole file does not match: damaged or cut off"));
    }
    Ok(())
}

/// The seal that the bytes after it call for.
fn expected(file: &mut File, kind: Kind) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(SEAL_BYTES as u64))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => digest.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(of_digest(kind, &digest.finalize()))
}

fn of_digest(kind: Kind, digest: &[u8]) -> Vec<u8> {
    let mut seal = format!("{}\nsha256 of all bytes from 512 on: {}\n", kind.title(), hex(digest)).into_bytes();
    seal.resize(SEAL_BYTES, 0);
    seal
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
