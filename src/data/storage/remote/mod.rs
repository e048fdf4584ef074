//! What all far places have in common: they list objects, and read ranges of them. A file for each kind of place; `fetch` brings
//! the bytes, `cache` keeps them, `known` brings well-known data sets; `deposit` is the other way round.

mod cache;
mod deposit;
mod fetch;
mod hdfs;
mod http;
mod known;
mod object;
mod profile;
mod progress;
mod trouble;
mod unpack;
mod webhdfs;

use self::deposit::Outgoing;
use self::hdfs::Hdfs;
use self::http::Http;
use self::object::Store;
use self::trouble::Trouble;
use self::webhdfs::WebHdfs;
use super::catalog::Known;
use super::depot::Parcel;
use super::staging::{Patience, Staged, Staging};
use crate::config::address::{is_redacted, redacted, scheme};
use crate::error::{Error, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::future::Future;
use std::ops::Range;
use std::path::{Component, Path};
use std::time::Duration;

/// The work of [`super::stage`].
pub(super) fn stage(url: &str, how: &Staging) -> Result<Staged> {
    with_runtime(cache::stage(url, how))
}

/// The work of [`super::fetch_known`].
pub(super) fn fetch_known(set: &Known, mirror: Option<&str>, out: &Path, how: &Staging) -> Result<Vec<String>> {
    with_runtime(known::fetch(set, mirror, out, how))
}

/// The work of [`Depot::list`](super::Depot::list).
pub(super) fn list(url: &str, how: &Staging) -> Result<Vec<(String, u64)>> {
    with_runtime(deposit::list(url, how))
}

/// The work of [`Depot::put`](super::Depot::put).
pub(super) fn put(url: &str, parcels: &[Parcel], how: &Staging) -> Result<u64> {
    with_runtime(deposit::put(url, parcels, how))
}

/// The work of [`Depot::get`](super::Depot::get).
pub(super) fn get(url: &str, names: &[String], folder: &Path, how: &Staging) -> Result<()> {
    with_runtime(deposit::get(url, names, folder, how))
}

/// More objects below one folder are a mistake.
const MOST_OBJECTS: usize = 1_000_000;

/// A piece of an object's bytes as they come.
type Bytestream = BoxStream<'static, Result<Bytes, Trouble>>;

/// One object.
#[derive(Debug, Clone, PartialEq)]
struct Object {
    /// Its name in the folder, with `/` between folders; of a single object the last part of its address.
    pub name: String,
    /// What the place calls it.
    pub key: String,
    /// Its length.
    pub size: u64,
    /// What changes with its content: ETag or time of change; empty where the place does not tell.
    pub tag: String,
    /// Whether ranges of it can be read.
    pub ranges: bool,
    /// A checksum that the place tells.
    pub digest: Option<Digest>,
}

/// A checksum of a whole object.
#[derive(Debug, Clone, PartialEq)]
enum Digest {
    /// MD5.
    Md5(Vec<u8>),
    /// MD5, unless the store encrypts by keys of its own: then it means nothing.
    PerhapsMd5(Vec<u8>),
    /// SHA-256.
    Sha256(Vec<u8>),
}

/// What an address stands for.
#[derive(Debug, Clone, PartialEq)]
struct Listing {
    /// The last part of the address.
    pub name: String,
    /// Whether it is one object and no folder.
    pub single: bool,
    /// By name.
    pub objects: Vec<Object>,
}

impl Listing {
    /// Of one object.
    pub fn single(object: Object) -> Self {
        Self { name: object.name.clone(), single: true, objects: vec![object] }
    }

    /// Of a folder. Errors: it is empty, has too many objects or one whose name leads out of it.
    pub fn folder(name: &str, mut objects: Vec<Object>) -> Result<Self, Trouble> {
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        objects.dedup_by(|a, b| a.name == b.name);
        if objects.is_empty() {
            return Err(Trouble::Missing("nor any below it".into()));
        }
        if objects.len() > MOST_OBJECTS {
            return Err(Trouble::Refused(format!("the folder has more than {MOST_OBJECTS} objects")));
        }
        let name = if is_safe(name) { name } else { "data" };
        Ok(Self { name: name.to_owned(), single: false, objects })
    }

    /// All bytes.
    pub fn size(&self) -> u64 {
        self.objects.iter().map(|object| object.size).fold(0, u64::saturating_add)
    }
}

/// Whether a name stays inside the folder that it is put in.
fn is_safe(name: &str) -> bool {
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    plain && !name.is_empty() && !name.contains(['\0', '\\']) && !name.split('/').any(|part| part.len() > 255)
}

/// The last part of an address, `data` if it has none that can be a file's name.
fn last_part(address: &str) -> &str {
    let last = address.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if is_safe(last) { last } else { "data" }
}

/// A far place.
enum Remote {
    Http(Http),
    Store(Store),
    Hdfs(Hdfs),
    WebHdfs(WebHdfs),
}

impl Remote {
    /// Looks at an address; nothing is asked of the place yet.
    ///
    /// # Errors
    /// `Usage`.
    pub fn open(url: &str, how: &Staging) -> Result<Self> {
        let place = redacted(url);
        if is_redacted(url) {
            let what = "the part of this URL that signs in was left out where it was kept";
            return Err(Error::usage(place, what, "give it anew, as by --set data.path=URL or DDL_DATA_PATH"));
        }
        let kind = scheme(url).unwrap_or_default();
        // Credentials of these come from variables and files, never from a URL, which job files and histories keep.
        if kind != "http" && kind != "https" && url.contains('?') {
            let what = format!("a URL of {kind} takes no `?`");
            return Err(Error::usage(place, what, format!("leave out what follows it; {}", sign_in(&kind))));
        }
        match kind.as_str() {
            "http" | "https" => Ok(Remote::Http(Http::open(url, how)?)),
            "s3" | "s3a" | "az" | "abfs" | "abfss" => Ok(Remote::Store(Store::open(url, &kind, &how.patience)?)),
            "hdfs" => Ok(Remote::Hdfs(Hdfs::open(url, &how.patience)?)),
            "webhdfs" | "swebhdfs" => Ok(Remote::WebHdfs(WebHdfs::open(url, &kind, &how.patience)?)),
            _ => {
                let mend = "use a local path, https, http, s3, az, abfss, abfs, hdfs or webhdfs";
                Err(Error::usage(place, format!("data cannot be had by {kind}://"), mend))
            }
        }
    }

    /// What the address stands for now.
    pub async fn list(&self, patience: &Patience) -> Result<Listing, Trouble> {
        let listing = match self {
            // One request an object: each is tried again by itself.
            Remote::Http(place) => place.list(patience).await,
            Remote::Store(place) => patiently(patience, || place.list()).await,
            Remote::Hdfs(place) => patiently(patience, || place.list()).await,
            Remote::WebHdfs(place) => patiently(patience, || place.list()).await,
        }?;
        match listing.objects.iter().find(|object| !is_safe(&object.name)) {
            Some(object) => Err(Trouble::Refused(format!("an object's name cannot be a file's: {:?}", object.name))),
            None => Ok(listing),
        }
    }

    /// Bytes of an object; of one without ranges all of them.
    pub async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytestream, Trouble> {
        match self {
            Remote::Http(place) => place.read(object, range).await,
            Remote::Store(place) => place.read(object, range).await,
            Remote::Hdfs(place) => place.read(object, range).await,
            Remote::WebHdfs(place) => place.read(object, range).await,
        }
    }
}

impl Remote {
    /// Writes the object `name` below the address: whole, or the older one stays.
    pub async fn write(&self, name: &str, file: &Outgoing<'_>, patience: &Patience) -> Result<(), Trouble> {
        match self {
            Remote::Http(_) => Err(Trouble::Refused("a web address can be read, not written to".into())),
            Remote::Store(place) => place.write(name, file, patience).await,
            Remote::Hdfs(place) => patiently(patience, || place.write(name, file)).await,
            Remote::WebHdfs(place) => patiently(patience, || place.write(name, file)).await,
        }
    }
}

/// How to get into a kind of place.
fn sign_in(kind: &str) -> String {
    match kind {
        "s3" | "s3a" => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or AWS_SKIP_SIGNATURE=true for public data"
        }
        "az" | "abfs" | "abfss" => {
            "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"
        }
        "hdfs" => "set HADOOP_USER_NAME, or get a ticket by kinit and set HADOOP_CONF_DIR",
        "webhdfs" | "swebhdfs" => "set HADOOP_USER_NAME to a user who may read it, or use hdfs:// with a Kerberos ticket",
        _ => "use a URL that you may read, such as a signed one",
    }
    .to_owned()
}

/// Tries `work` until it goes well, will not, or the tries are used up.
async fn patiently<T, F: Future<Output = Result<T, Trouble>>>(
    patience: &Patience,
    mut work: impl FnMut() -> F,
) -> Result<T, Trouble> {
    let mut tries = Tries::new(patience);
    loop {
        match work().await {
            Ok(done) => return Ok(done),
            Err(trouble) => tries.another_after(trouble).await?,
        }
    }
}

/// Counts failures between which nothing came.
struct Tries<'a> {
    patience: &'a Patience,
    failed: u32,
}

impl<'a> Tries<'a> {
    /// None has failed yet.
    pub fn new(patience: &'a Patience) -> Self {
        Self { patience, failed: 0 }
    }

    /// Some of it came.
    pub fn got_further(&mut self) {
        self.failed = 0;
    }

    /// Pauses before another try.
    ///
    /// # Errors
    /// The trouble, if another try would not help or there were enough.
    pub async fn another_after(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        let Trouble::Broken(what) = trouble else { return Err(trouble) };
        self.failed += 1;
        if self.failed >= self.patience.attempts {
            return Err(Trouble::Broken(format!("{what} (after {} tries)", self.failed)));
        }
        log::info!("try {} failed, another one follows", self.failed);
        let pause = self.patience.first_pause.saturating_mul(1 << (self.failed - 1).min(16));
        tokio::time::sleep(pause.min(self.patience.longest_pause)).await;
        Ok(())
    }
}

/// `work`, unless nothing is heard for too long.
async fn in_time<T>(silence: Duration, work: impl Future<Output = T>) -> Result<T, Trouble> {
    match tokio::time::timeout(silence, work).await {
        Ok(ended) => Ok(ended),
        Err(_) => Err(Trouble::Broken(format!("no answer for {silence:.0?}"))),
    }
}

/// A short answer, of which at most `limit` bytes are taken.
async fn whole(mut stream: Bytestream, limit: usize) -> Result<Vec<u8>, Trouble> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        if all.len() + piece.len() > limit {
            return Err(Trouble::Refused(format!("the answer is longer than {limit} bytes")));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// Runs `work` on this thread. What it started is gone when this returns.
fn with_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    // An application's choice of cryptography, made once for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|e| Error::io(Path::new("network"), format!("cannot be used: {e}"), "start again"))?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}
