//! What the rest of the program asks of far storage.

use super::catalog::Known;
use super::remote;
use crate::config::address;
use crate::error::Result;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a far place is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries of a request that gets no further.
    pub attempts: u32,
    /// The pause before the second try; each later one is twice as long.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// A connection on which nothing comes for so long is given up.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 8,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(15),
            silence: Duration::from_secs(30),
        }
    }
}

/// How to stage.
#[derive(Debug, Clone, Default)]
pub struct Staging {
    /// The cache's folder; None: below `$SLURM_TMPDIR`, `$TMPDIR` or `/tmp`.
    pub cache: Option<PathBuf>,
    /// GB that it may hold; None: half of what is free.
    pub cache_gb: Option<f64>,
    /// The source that will read it, for places that cannot list a folder.
    pub source: String,
    /// Whether progress is shown.
    pub show: bool,
    /// How long to wait.
    pub patience: Patience,
}

/// A copy in the cache, which is not thrown out while this lives.
#[derive(Debug)]
pub struct Staged {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes that came over the network for it now.
    pub fetched: u64,
    /// Holds the entry's lock.
    pub(super) _lease: std::fs::File,
}

/// Whether a path is a URL, which must be staged before it can be read.
pub fn is_remote(path: &Path) -> bool {
    path.to_str().is_some_and(|path| address::scheme(path).is_some())
}

/// Copies what `url` names into the cache, unless it is there already and unchanged.
///
/// # Errors
/// `Usage`: no such scheme, a URL whose secrets were left out, or a program without remote storage; `Io`: there is no such object,
/// it may not be read, it changed meanwhile, does not fit, or the connection failed to the last try.
pub fn stage(url: &str, how: &Staging) -> Result<Staged> {
    remote::stage(url, how)
}

/// Downloads a data set by name into `out`: from its official places, or from a folder or URL `mirror` that holds the same
/// files. What is there already and right is kept. Says in lines what it did.
///
/// # Errors
/// As [`stage`]; `Data` where what came is not what it should be.
pub fn fetch_known(set: &Known, mirror: Option<&str>, out: &Path, how: &Staging) -> Result<Vec<String>> {
    remote::fetch_known(set, mirror, out, how)
}
