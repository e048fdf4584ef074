//! Copies of far data on this host. `<place>-<version>/` holds one: `data/` and `entry.json`, which says what it is. Its name
//! comes from the address and from the objects' names, lengths and tags, so that what changed is another entry. While it is
//! fetched it is `….part/`, and nobody reads it; `….lock` is held alone by whoever fetches or removes it, and together by
//! those who read it. What was used least recently goes first when space is needed; what is in use never.

use super::fetch::Source;
use super::trouble::Trouble;
use super::{Listing, Remote, Staged, Staging, sign_in};
use crate::config::address::{redacted, scheme};
use crate::error::{Error, Result};
use indicatif::HumanBytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::env;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const MEND: &str = "set data.cache to a folder of yours on a local disk, or $TMPDIR";

/// So many files are synced one by one; of more the whole file system is.
const FEW: usize = 64;

/// What an entry is.
#[derive(Serialize, Deserialize)]
struct Entry {
    url: String,
    name: String,
    single: bool,
    bytes: u64,
    files: Vec<(String, u64)>,
}

/// The cache's folder.
struct Cache {
    folder: PathBuf,
    most: Option<u64>,
}

/// The work of [`stage`](crate::data::storage::stage).
pub(super) async fn stage(url: &str, how: &Staging) -> Result<Staged> {
    let remote = Remote::open(url, how)?;
    let kind = scheme(url).unwrap_or_default();
    let error = |trouble: Trouble| trouble.at(url, &sign_in(&kind));
    let listing = remote.list(&how.patience).await.map_err(error)?;
    let cache = Cache::open(how)?;
    let (place, key) = keys(url, &listing);
    let mut lock = cache.lock(&key, &listing, url, how.show)?;
    let mut fetched = 0;
    if !cache.holds(&key, &listing) {
        cache.make_room(&key, listing.size(), url)?;
        let part = cache.folder.join(format!("{key}.part"));
        cache.begin(&part, url, &listing)?;
        let source = Source { remote: &remote, url, listing: &listing };
        fetched = source.bring(&part, how).await?;
        let now = remote.list(&how.patience).await.map_err(error)?;
        if now != listing {
            // Pieces of the old and the new may be in it.
            let _ = fs::remove_dir_all(&part);
            return Err(error(Trouble::Changed("it is not what it was at the beginning".into())));
        }
        cache.complete(&part, &key, &listing)?;
        cache.drop_older(&place, &key);
    }
    // To hold it together with others. Nobody can remove it in between: that needs the lock alone, and tries only once.
    if lock.lock_shared().is_err() || !cache.holds(&key, &listing) {
        lock = cache.lock(&key, &listing, url, how.show)?;
    }
    let _ = lock.set_modified(SystemTime::now());
    let path = cache.folder.join(&key).join("data");
    let path = if listing.single { path.join(&listing.name) } else { path };
    Ok(Staged { path, fetched, _lease: lock })
}

/// What an entry's name begins with for all versions of an address, and the whole name.
fn keys(url: &str, listing: &Listing) -> (String, String) {
    let hex = |bytes: &[u8]| bytes[..10].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // A signature is another one each day and does not name the object; any other query may.
    let query = url.split_once('?').map(|(_, query)| query.to_ascii_lowercase()).unwrap_or_default();
    let is_signed = query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        name == "sig" || name.ends_with("signature")
    });
    let mut place = Sha256::new();
    place.update(redacted(url));
    if !is_signed {
        place.update(query);
    }
    let mut version = Sha256::new();
    for object in &listing.objects {
        let line = format!("{}\0{}\0{}\0{:?}\n", object.name, object.size, object.tag, object.digest);
        version.update(line);
    }
    let place = hex(&place.finalize());
    let key = format!("{place}-{}", hex(&version.finalize()));
    (place, key)
}

impl Cache {
    fn open(how: &Staging) -> Result<Self> {
        let folder = match &how.cache {
            Some(folder) => folder.clone(),
            None => {
                let named = ["SLURM_TMPDIR", "TMPDIR"].iter().find_map(env::var_os);
                let base = named.filter(|base| !base.is_empty()).map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
                let user = env::var("USER").unwrap_or_else(|_| rustix::process::getuid().as_raw().to_string());
                base.join(format!("ddl-cache-{}", user.replace('/', "_")))
            }
        };
        let failed = |e: std::io::Error| Error::io(&folder, format!("the cache cannot be made: {e}"), MEND);
        // For its owner only: what is fetched with somebody's credentials is not for all.
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let folder = fs::canonicalize(&folder).map_err(failed)?;
        let owner = fs::metadata(&folder).map_err(failed)?.uid();
        if how.cache.is_none() && owner != rustix::process::getuid().as_raw() {
            return Err(Error::io(&folder, "the cache's folder belongs to another user", MEND));
        }
        Ok(Self { folder, most: how.cache_gb.map(|gb| (gb * 1e9) as u64) })
    }

    /// The lock of an entry: held alone, or together with others if it is there already.
    fn lock(&self, key: &str, listing: &Listing, url: &str, show: bool) -> Result<File> {
        let path = self.folder.join(format!("{key}.lock"));
        let failed = |e: std::io::Error| Error::io(&path, format!("cannot be made: {e}"), MEND);
        loop {
            let file =
                File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    // Those who read it hold it together: no need to wait for them.
                    if self.holds(key, listing) && file.try_lock_shared().is_ok() {
                        return Ok(file);
                    }
                    if show {
                        log::warn!("{}: another process fetches it; waiting for that", redacted(url));
                    }
                    file.lock().map_err(failed)?;
                }
                Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {
                    log::warn!("{}: this file system has no locks; see that no other run stages here", path.display());
                }
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
            // Whoever held it before may have removed it between our opening and locking it.
            let (held, there) = (file.metadata().map_err(failed)?, fs::metadata(&path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino())) {
                return Ok(file);
            }
        }
    }

    /// Whether an entry is there, with all its files at their lengths.
    fn holds(&self, key: &str, listing: &Listing) -> bool {
        let folder = self.folder.join(key);
        let whole = |name: &str, size: u64| {
            fs::metadata(folder.join("data").join(name)).is_ok_and(|file| file.is_file() && file.len() == size)
        };
        folder.is_dir() && listing.objects.iter().all(|object| whole(&object.name, object.size))
    }

    fn begin(&self, part: &Path, url: &str, listing: &Listing) -> Result<()> {
        let failed = |e: std::io::Error| Error::io(part, format!("cannot be made: {e}"), MEND);
        fs::create_dir_all(part.join("data")).map_err(failed)?;
        let entry = Entry {
            url: redacted(url),
            name: listing.name.clone(),
            single: listing.single,
            bytes: listing.size(),
            files: listing.objects.iter().map(|object| (object.name.clone(), object.size)).collect(),
        };
        let text = serde_json::to_vec_pretty(&entry).map_err(|e| Error::internal("the cache's entry", e))?;
        File::create(part.join("entry.json")).and_then(|mut file| file.write_all(&text)).map_err(failed)
    }

    /// Everything on disk, then the name that says so.
    fn complete(&self, part: &Path, key: &str, listing: &Listing) -> Result<()> {
        let failed = |e: std::io::Error| Error::io(part, format!("cannot be kept: {e}"), MEND);
        let _ = fs::remove_file(part.join("journal"));
        let folder = File::open(&self.folder).map_err(failed)?;
        if listing.objects.len() <= FEW {
            for object in &listing.objects {
                let file = File::open(part.join("data").join(&object.name)).map_err(failed)?;
                file.sync_all().map_err(failed)?;
            }
        } else {
            rustix::fs::syncfs(&folder).map_err(|e| failed(e.into()))?;
        }
        // One that lost files is no entry any more.
        let _ = fs::remove_dir_all(self.folder.join(key));
        fs::rename(part, self.folder.join(key)).map_err(failed)?;
        // Some network file systems cannot sync a folder; the copy's files are checked by their lengths when it is used.
        let _ = folder.sync_all();
        Ok(())
    }

    /// Makes room for `bytes` of the entry `key`.
    ///
    /// # Errors
    /// `Io`: they do not fit.
    fn make_room(&self, key: &str, bytes: u64, url: &str) -> Result<()> {
        let guard = self.folder.join("room.lock");
        let failed = |e: std::io::Error| Error::io(&guard, format!("cannot be made: {e}"), MEND);
        let guard_file = File::create(&guard).map_err(failed)?;
        // Without locks two that come at once may take a little more than they should.
        let _ = guard_file.lock();
        let mut entries: Vec<Held> = self.entries(key);
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        let here = self.bytes_here(key);
        let free = free_bytes(&self.folder).saturating_add(here);
        let mut held: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let most = self.most.unwrap_or(held.saturating_add(free) / 2);
        let mut free_now = free;
        while held.saturating_add(bytes) > most || bytes > free_now {
            let Some(oldest) = entries.pop() else { break };
            if self.remove(&oldest.key) {
                held -= oldest.bytes;
                free_now = free_now.saturating_add(oldest.bytes);
            }
        }
        let shown = redacted(url);
        if held.saturating_add(bytes) > most {
            let in_use = if held > 0 { format!(", of which {} are in use", HumanBytes(held)) } else { String::new() };
            let what = format!("it has {}, and the cache may hold {}{in_use}", HumanBytes(bytes), HumanBytes(most));
            let mend = format!(
                "set data.cache_gb higher, or data.cache to a larger disk than that of {}",
                self.folder.display()
            );
            return Err(Error::io(Path::new(&shown), what, mend));
        }
        if bytes > free_now {
            let what = format!(
                "it has {}, and {} has {} free",
                HumanBytes(bytes),
                self.folder.display(),
                HumanBytes(free_now)
            );
            return Err(Error::io(Path::new(&shown), what, "set data.cache to a folder on a larger disk"));
        }
        Ok(())
    }

    /// All other entries, fetched or begun.
    fn entries(&self, but: &str) -> Vec<Held> {
        let Ok(found) = fs::read_dir(&self.folder) else { return Vec::new() };
        let names = found.flatten().map(|file| file.file_name().to_string_lossy().into_owned());
        let keys = names.filter_map(|name| name.strip_suffix(".lock").map(str::to_owned));
        keys.filter(|key| is_key(key) && key != but)
            .map(|key| {
                let used = fs::metadata(self.folder.join(format!("{key}.lock"))).and_then(|file| file.modified());
                let read = |folder: String| -> Option<u64> {
                    let text = fs::read(self.folder.join(folder).join("entry.json")).ok()?;
                    serde_json::from_slice::<Entry>(&text).ok().map(|entry| entry.bytes)
                };
                let bytes = read(key.clone()).or_else(|| read(format!("{key}.part"))).unwrap_or(0);
                Held { key, bytes, used: used.unwrap_or(SystemTime::UNIX_EPOCH) }
            })
            .collect()
    }

    /// What of an entry takes space already.
    fn bytes_here(&self, key: &str) -> u64 {
        let mut open = vec![self.folder.join(format!("{key}.part"))];
        let mut bytes = 0;
        while let Some(folder) = open.pop() {
            for file in fs::read_dir(folder).into_iter().flatten().flatten() {
                match file.metadata() {
                    Ok(kind) if kind.is_dir() => open.push(file.path()),
                    Ok(kind) => bytes += kind.blocks() * 512,
                    Err(_) => {}
                }
            }
        }
        bytes
    }

    /// Removes an entry, unless somebody holds it.
    fn remove(&self, key: &str) -> bool {
        let path = self.folder.join(format!("{key}.lock"));
        let Ok(file) = File::options().write(true).open(&path) else { return false };
        if file.try_lock().is_err() {
            return false;
        }
        let _ = fs::remove_dir_all(self.folder.join(key));
        let _ = fs::remove_dir_all(self.folder.join(format!("{key}.part")));
        let gone = !self.folder.join(key).exists();
        if gone {
            let _ = fs::remove_file(&path);
        }
        gone
    }

    /// Removes what an address stood for earlier.
    fn drop_older(&self, place: &str, key: &str) {
        for entry in self.entries(key).iter().filter(|entry| entry.key.starts_with(place)) {
            self.remove(&entry.key);
        }
    }
}

/// An entry as seen by whoever needs space.
struct Held {
    key: String,
    bytes: u64,
    used: SystemTime,
}

/// Whether a name is one of [`keys`]: whatever else lies in the folder is not ours.
fn is_key(name: &str) -> bool {
    name.len() == 41 && name.chars().enumerate().all(|(i, c)| if i == 20 { c == '-' } else { c.is_ascii_hexdigit() })
}

/// Bytes that this user may still write there.
fn free_bytes(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(u64::MAX / 2, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}
