//! Copies files of this machine into a far folder, whole or not at all, and fetches them back.

use super::fetch::{Source, sha256_of};
use super::progress::Progress;
use super::trouble::Trouble;
use super::{Listing, Object, Remote, Staging, in_time, patiently, sign_in};
use crate::config::address::{redacted, scheme};
use crate::data::storage::depot::Parcel;
use crate::error::{Error, Result};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What comes back other than it was sent is sent so often.
const MOST_TRIES: usize = 2;

/// A file on its way.
pub(super) struct Outgoing<'a> {
    file: File,
    pub size: u64,
    progress: &'a RefCell<Progress>,
}

impl Outgoing<'_> {
    /// Bytes of it.
    pub fn read(&self, start: u64, len: usize) -> Result<Bytes, Trouble> {
        let mut bytes = vec![0; len];
        let read = self.file.read_exact_at(&mut bytes, start);
        read.map_err(|e| Trouble::Refused(format!("the file here cannot be read: {e}")))?;
        Ok(bytes.into())
    }

    /// Where its pieces of at most `most` bytes begin, and how long they are.
    pub fn pieces(&self, most: u64) -> impl Iterator<Item = (u64, usize)> + use<> {
        let size = self.size;
        (0..size.div_ceil(most)).map(move |i| (i * most, most.min(size - i * most) as usize))
    }

    /// All of it, piece by piece.
    pub fn stream(&self, most: u64) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>, Trouble> {
        let file = self.file.try_clone().map_err(|e| Trouble::Refused(format!("the file here cannot be read: {e}")))?;
        Ok(stream::iter(self.pieces(most)).map(move |(start, len)| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, start).map(|()| bytes.into())
        }))
    }

    /// So many bytes of it are there.
    pub fn sent(&self, bytes: u64) {
        self.progress.borrow_mut().add(bytes);
    }
}

/// All that is there.
async fn look(remote: &Remote, how: &Staging) -> Result<Vec<Object>, Trouble> {
    match remote.list(&how.patience).await {
        Ok(listing) => Ok(listing.objects),
        Err(Trouble::Missing(_)) => Ok(Vec::new()),
        Err(trouble) => Err(trouble),
    }
}

/// The work of [`Depot::list`](crate::data::storage::Depot::list).
pub(super) async fn list(url: &str, how: &Staging) -> Result<Vec<(String, u64)>> {
    let remote = Remote::open(url, how)?;
    let kind = scheme(url).unwrap_or_default();
    let found = look(&remote, how).await.map_err(|trouble| trouble.at(url, &sign_in(&kind)))?;
    Ok(found.into_iter().map(|object| (object.name, object.size)).collect())
}

/// The work of [`Depot::put`](crate::data::storage::Depot::put).
pub(super) async fn put(url: &str, parcels: &[Parcel], how: &Staging) -> Result<u64> {
    let remote = Remote::open(url, how)?;
    let kind = scheme(url).unwrap_or_default();
    let mut total = 0;
    for (_, path) in parcels {
        total += size_of(path)?;
    }
    let progress = RefCell::new(Progress::start(format!("to {}", redacted(url)), total, 0, how.show));
    let mut there = look(&remote, how).await.map_err(|trouble| trouble.in_writing(url, &sign_in(&kind)))?;
    let mut sent = 0;
    for (name, path) in parcels {
        let failed = |trouble: Trouble| trouble.in_writing(&format!("{url}{name}"), &sign_in(&kind));
        let sum = sha256_of(path)?;
        let file = File::open(path).map_err(|e| Error::io(path, e, "check the folder"))?;
        let outgoing = Outgoing { file, size: size_of(path)?, progress: &progress };
        let mut tries = 0;
        loop {
            let object = there.iter().find(|object| object.name == *name && object.size == outgoing.size);
            if let Some(object) = object
                && patiently(&how.patience, || read_back(&remote, object, how)).await.map_err(failed)? == sum
            {
                break;
            }
            if tries == MOST_TRIES {
                return Err(failed(Trouble::Broken("what comes back is not what was sent".into())));
            }
            tries += 1;
            remote.write(name, &outgoing, &how.patience).await.map_err(failed)?;
            sent += outgoing.size;
            there = look(&remote, how).await.map_err(failed)?;
        }
    }
    Ok(sent)
}

/// The SHA-256 of what is there.
async fn read_back(remote: &Remote, object: &Object, how: &Staging) -> Result<Vec<u8>, Trouble> {
    let mut sum = Sha256::new();
    if object.size > 0 {
        let silence = how.patience.silence;
        let mut bytes = in_time(silence, remote.read(object, 0..object.size)).await??;
        while let Some(some) = in_time(silence, bytes.next()).await? {
            sum.update(&some?);
        }
    }
    Ok(sum.finalize().to_vec())
}

/// The work of [`Depot::get`](crate::data::storage::Depot::get).
pub(super) async fn get(url: &str, names: &[String], folder: &Path, how: &Staging) -> Result<()> {
    let remote = Remote::open(url, how)?;
    let kind = scheme(url).unwrap_or_default();
    let mut there = look(&remote, how).await.map_err(|trouble| trouble.at(url, &sign_in(&kind)))?;
    there.retain(|object| names.contains(&object.name));
    let listing = Listing { name: "run".into(), single: false, objects: there };
    let work = folder.join(".fetch");
    let failed = |e: std::io::Error| Error::io(folder, format!("cannot be written: {e}"), "see that there is space");
    // What an earlier try left may be of another version.
    let _ = fs::remove_dir_all(&work);
    Source { remote: &remote, url, listing: &listing }.bring(&work, how).await?;
    for name in names {
        let (from, to) = (work.join("data").join(name), folder.join(name));
        if from.exists() {
            fs::create_dir_all(to.parent().unwrap_or(folder)).map_err(failed)?;
            File::open(&from).and_then(|file| file.sync_all()).map_err(failed)?;
            fs::rename(&from, &to).map_err(failed)?;
        }
    }
    fs::remove_dir_all(&work).map_err(failed)
}

fn size_of(path: &Path) -> Result<u64> {
    let found = fs::metadata(path).map_err(|e| Error::io(path, format!("cannot be read: {e}"), "check the folder"))?;
    Ok(found.len())
}
