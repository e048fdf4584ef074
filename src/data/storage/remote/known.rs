//! `ddl fetch NAME`: the files of a well-known data set into a folder, from the places that give it to anybody or a mirror.
//!
//! They come into `.fetch/` in that folder first, so that what breaks off is gone on with, and are renamed when they are right.

use super::fetch::{Source, md5_of, sha256_of};
use super::trouble::Trouble;
use super::unpack;
use super::{Listing, Patience, Remote, Staging, sign_in};
use crate::config::address::{redacted, scheme};
use crate::data::storage::catalog::{CATALOG, File, Known, Sum, alternatives};
use crate::error::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// The work of [`fetch_known`](crate::data::storage::fetch_known).
pub(super) async fn fetch(set: &Known, mirror: Option<&str>, out: &Path, how: &Staging) -> Result<Vec<String>> {
    let failed = |e: std::io::Error| Error::io(out, format!("cannot be made: {e}"), "choose another folder by --out");
    fs::create_dir_all(out).map_err(failed)?;
    if let Some(lines) = complete(set, out)? {
        return Ok(lines);
    }
    let places: Vec<&str> = mirror.map_or_else(|| set.places.to_vec(), |mirror| vec![mirror]);
    if places.is_empty() {
        return Err(Error::usage(format!("ddl fetch {}", set.name), "there is no place to fetch it from", set.by_hand));
    }
    let lock_path = out.join(".fetch.lock");
    let lock = fs::File::create(&lock_path).map_err(failed)?;
    if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
        let what = "another process fetches into this folder";
        return Err(Error::usage(out.display().to_string(), what, "wait for it, or choose another --out"));
    }
    let last = places.len() - 1;
    let mut result = Ok(Vec::new());
    for (i, place) in places.iter().enumerate() {
        // An official place has another beside it: no need to wait long for one that is down.
        let attempts = if i < last { how.patience.attempts.min(4) } else { how.patience.attempts };
        let how = Staging { patience: Patience { attempts, ..how.patience }, ..how.clone() };
        result = from(set, place, out, &how).await;
        match &result {
            Err(error) if i < last => log::warn!("{error}; trying the next place"),
            _ => break,
        }
    }
    let lines = result?;
    let _ = fs::remove_dir_all(out.join(".fetch"));
    let _ = fs::remove_file(lock_path);
    Ok(lines)
}

/// A line a file if all are there and right; what is there and wrong is an error, since it may be somebody's own.
fn complete(set: &Known, out: &Path) -> Result<Option<Vec<String>>> {
    let mut lines = Vec::new();
    for file in set.files {
        let Some(path) = there(file, out) else { return Ok(None) };
        lines.push(format!("{}: is there, {}", path.display(), checked(file, &path)?));
    }
    Ok(Some(lines))
}

/// A file of the set in a folder, packed or not.
fn there(file: &File, folder: &Path) -> Option<PathBuf> {
    alternatives(file.name).into_iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

async fn from(set: &Known, place: &str, out: &Path, how: &Staging) -> Result<Vec<String>> {
    let work = out.join(".fetch");
    let mut lines = Vec::new();
    let files: Vec<&File> = set.files.iter().filter(|file| there(file, out).is_none()).collect();
    if let Some(archive) = set.archive {
        match bring(archive.file.name, place, &work, how).await {
            Ok(path) => {
                lines.push(format!("{}: {}", archive.file.name, checked(&archive.file, &path)?));
                let unpacked = out.join(".fetch").join("unpacked");
                fs::create_dir_all(&unpacked)
                    .map_err(|e| Error::io(&unpacked, format!("cannot be made: {e}"), "free space"))?;
                let names: Vec<&str> = files.iter().map(|file| file.name).collect();
                unpack::files(&path, &names, &unpacked, archive.most_bytes)?;
                for file in files {
                    lines.push(keep(file, &unpacked.join(file.name), out)?);
                }
                return Ok(lines);
            }
            // A mirror may hold what is in it.
            Err(Lacks::Missing(_)) => {}
            Err(Lacks::Other(error)) => return Err(error),
        }
    }
    for file in files {
        let mut missing = None;
        let mut found = None;
        for name in alternatives(file.name) {
            match bring(&name, place, &work, how).await {
                Ok(path) => {
                    found = Some(path);
                    break;
                }
                Err(Lacks::Missing(error)) => missing = missing.or(Some(error)),
                Err(Lacks::Other(error)) => return Err(error),
            }
        }
        match (found, missing) {
            (Some(path), _) => lines.push(keep(file, &path, out)?),
            (None, Some(error)) => return Err(error),
            (None, None) => return Err(Error::internal("ddl fetch", "a file without a name")),
        }
    }
    Ok(lines)
}

/// Why a place does not give a file.
enum Lacks {
    Missing(Error),
    Other(Error),
}

/// One file from a place into the work folder.
async fn bring(name: &str, place: &str, work: &Path, how: &Staging) -> Result<PathBuf, Lacks> {
    let work = work.join(name);
    let path = work.join("data").join(name);
    let Some(kind) = scheme(place) else {
        let from = Path::new(place).join(name);
        if !from.exists() {
            return Err(Lacks::Missing(Error::io(&from, "no such file", "check --mirror")));
        }
        unpack::copy(&from, &path).map_err(Lacks::Other)?;
        return Ok(path);
    };
    let url = below(place, name);
    let remote = Remote::open(&url, how).map_err(Lacks::Other)?;
    let listing = remote.list(&how.patience).await.map_err(|trouble| {
        let is_missing = matches!(trouble, Trouble::Missing(_));
        let error = trouble.at(&url, &sign_in(&kind));
        if is_missing { Lacks::Missing(error) } else { Lacks::Other(error) }
    })?;
    let single = listing.single && listing.objects[0].name == name;
    if !single {
        return Err(Lacks::Missing(Error::io(Path::new(&redacted(&url)), "there is no such file", "check --mirror")));
    }
    let is_other = same_as_before(&work, &listing).map_err(Lacks::Other)?;
    if is_other {
        log::info!("{name}: begun anew");
    }
    Source { remote: &remote, url: &url, listing: &listing }.bring(&work, how).await.map_err(Lacks::Other)?;
    Ok(path)
}

/// Throws away what came of another version. Gives whether there was one.
fn same_as_before(work: &Path, listing: &Listing) -> Result<bool> {
    let version: Vec<String> =
        listing.objects.iter().map(|object| format!("{} {} {}", object.size, object.tag, object.ranges)).collect();
    let (path, version) = (work.join("version"), version.join("\n"));
    let before = fs::read_to_string(&path).ok();
    let is_other = before.as_ref().is_some_and(|before| *before != version);
    if before.as_ref() != Some(&version) {
        let _ = fs::remove_dir_all(work);
        let made = fs::create_dir_all(work).and_then(|()| fs::write(&path, &version));
        made.map_err(|e| Error::io(work, format!("cannot be made: {e}"), "choose another folder by --out"))?;
    }
    Ok(is_other)
}

/// The address of a file in a folder; a query stays behind it.
fn below(folder: &str, name: &str) -> String {
    let (path, query) = folder.split_at(folder.find('?').unwrap_or(folder.len()));
    format!("{}/{name}{query}", path.trim_end_matches('/'))
}

/// Gives a file that is right its place.
fn keep(file: &File, path: &Path, out: &Path) -> Result<String> {
    if !path.is_file() {
        let what = format!("it lacks {}", file.name);
        return Err(Error::data("the archive".to_owned(), what, "get it anew, or from another place by --mirror"));
    }
    let how = checked(file, path)?;
    let to = out.join(path.file_name().unwrap_or_default());
    let failed = |e: std::io::Error| Error::io(&to, format!("cannot be kept: {e}"), "see that there is space");
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
    fs::rename(path, &to).map_err(failed)?;
    Ok(format!("{}: {how}", to.display()))
}

/// How a file was found right.
///
/// # Errors
/// `Data`: it is wrong.
fn checked(file: &File, path: &Path) -> Result<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let is_gz = path.extension().is_some_and(|ending| ending == "gz");
    let is_renamed = path.file_name().is_some_and(|name| name != file.name);
    let (found, told, kind) = match file.sum {
        Sum::Sha256(told) if is_gz => (hex(&unpacked_sha256(path)?), told, "SHA-256 of the unpacked content"),
        Sum::Sha256(told) => (hex(&sha256_of(path)?), told, "SHA-256"),
        // That of the other form is not known.
        Sum::Md5(told) if !is_renamed => (hex(&md5_of(path)?), told, "published MD5"),
        Sum::Md5(_) | Sum::Unknown => {
            return Ok(format!("no sum is published for it; SHA-256 {}", hex(&sha256_of(path)?)));
        }
    };
    if found != told {
        let what = format!("it is not what it should be: its {kind} is {found}, not {told}");
        let mend = "remove it and fetch again, or from another place by --mirror";
        return Err(Error::data(path.display().to_string(), what, mend));
    }
    Ok(format!("{kind} is right"))
}

fn unpacked_sha256(path: &Path) -> Result<Vec<u8>> {
    let file = fs::File::open(path).map_err(|e| Error::io(path, e, "check the path"))?;
    let mut unpacked = MultiGzDecoder::new(BufReader::with_capacity(1 << 18, file));
    let (mut sum, mut buffer) = (Sha256::new(), vec![0; 1 << 18]);
    loop {
        match unpacked.read(&mut buffer) {
            Ok(0) => return Ok(sum.finalize().to_vec()),
            Ok(read) => sum.update(&buffer[..read]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => {
                let what = format!("it cannot be unpacked: {e}");
                return Err(Error::data(path.display().to_string(), what, "remove it and fetch again"));
            }
        }
    }
}

/// What a source reads in a folder, for places that cannot list one: of each line the first name that is there.
pub(super) fn names_of(source: &str) -> Vec<Vec<String>> {
    let in_catalog = CATALOG.iter().find(|set| set.source == source && source != "stocks");
    let files = in_catalog.map(|set| set.files).unwrap_or_default();
    files.iter().map(|file| alternatives(file.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_of_a_known_set_reads_its_files_packed_or_not() {
        assert_eq!(names_of("mnist")[0], ["train-images-idx3-ubyte.gz", "train-images-idx3-ubyte"]);
        assert!(names_of("csv").is_empty());
    }
}
