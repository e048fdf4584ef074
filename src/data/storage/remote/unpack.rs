//! Takes the wanted files out of a `.tar.gz`, whatever else and however much more is in it.

use crate::error::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Puts the files of these names, wherever they lie in the archive, into `folder`; at most `most_bytes` are unpacked.
///
/// # Errors
/// `Data`: it is no such archive, or unpacks to too much; `Io`.
pub(super) fn files(archive: &Path, names: &[&str], folder: &Path, most_bytes: u64) -> Result<Vec<PathBuf>> {
    let failed = |e: io::Error| Error::io(folder, format!("cannot be written: {e}"), "see that there is space");
    let broken = |e: io::Error| {
        let what = format!("it cannot be unpacked: {e}");
        Error::data(archive.display().to_string(), what, "get it anew, or from another place by --mirror")
    };
    let file = File::open(archive).map_err(|e| Error::io(archive, e, "check the path"))?;
    let limited = MultiGzDecoder::new(BufReader::with_capacity(1 << 18, file)).take(most_bytes);
    let mut tar = tar::Archive::new(limited);
    let mut found = Vec::new();
    for entry in tar.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.file_name().map(|name| name.to_string_lossy().into_owned());
        let wanted = name.as_deref().and_then(|name| names.iter().find(|wanted| **wanted == name));
        let (Some(name), true) = (wanted, entry.header().entry_type().is_file()) else { continue };
        let path = folder.join(name);
        let mut out = File::create(&path).map_err(failed)?;
        let (size, mut buffer, mut written) = (entry.size(), vec![0; 1 << 18], 0);
        loop {
            let read = entry.read(&mut buffer).map_err(broken)?;
            if read == 0 {
                break;
            }
            io::Write::write_all(&mut out, &buffer[..read]).map_err(failed)?;
            written += read as u64;
        }
        if written != size {
            return Err(broken(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} is cut off"))));
        }
        found.push(path);
    }
    Ok(found)
}

/// Copies a local file, with its folder.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |e: io::Error| Error::io(to, format!("cannot be written: {e}"), "see that there is space");
    let mut source = crate::resource::open_file(from, "check --mirror")?;
    fs::create_dir_all(to.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    let mut out = File::create(to).map_err(failed)?;
    io::copy(&mut source, &mut out).map_err(failed).map(|_| ())
}
