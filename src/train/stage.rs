//! Data at URLs, brought to each host before they are opened: the host's first rank stages, all learn where the copy is.

use super::terminal;
use crate::comm::{Comm, agree};
use crate::config::DataConfig;
use crate::data::storage::{self, Staged, Staging, is_remote};
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The job's `[data]` as this host reads it. The copies stay in the cache while this lives.
pub struct LocalData {
    /// With local paths in place of URLs.
    pub config: DataConfig,
    _copies: Vec<Staged>,
}

/// The key of some sources for a file of its own with the test part.
const TEST_PATH: &str = "test_path";

impl LocalData {
    /// Stages what `config` names by URLs; all ranks call it.
    ///
    /// # Errors
    /// Those of [`stage`](storage::stage) on any host, on all ranks; `Io` for a local path that is not there, if a known data
    /// set can be fetched to it.
    pub fn stage(config: &DataConfig, comm: &dyn Comm) -> Result<Self> {
        agree(comm, can_be_fetched(config))?;
        Self::bring(config, comm)
    }

    /// The same for a file of inputs in the format of the job's data.
    ///
    /// # Errors
    /// Those of [`stage`](storage::stage) on any host, on all ranks.
    pub fn stage_inputs(config: &DataConfig, input: &Path, comm: &dyn Comm) -> Result<Self> {
        Self::bring(&DataConfig { path: Some(input.to_owned()), ..config.clone() }, comm)
    }

    fn bring(config: &DataConfig, comm: &dyn Comm) -> Result<Self> {
        let test = config.source.table.get(TEST_PATH).and_then(toml::Value::as_str).map(PathBuf::from);
        let (path, test) = (config.path.clone().filter(|path| is_remote(path)), test.filter(|path| is_remote(path)));
        let mut config = config.clone();
        if path.is_none() && test.is_none() {
            return Ok(Self { config, _copies: Vec::new() });
        }
        let wanted: Vec<&Path> = path.iter().chain(&test).map(PathBuf::as_path).collect();
        let host = comm.host(Some(0))?;
        let how = Staging {
            cache: config.cache.clone(),
            cache_gb: config.cache_gb,
            source: config.source.kind.clone(),
            show: comm.rank() == 0 && !terminal::is_quiet(),
            ..Staging::default()
        };
        let copies = if host.rank() == 0 { copies(&wanted, &how) } else { Ok(Vec::new()) };
        let copies = agree(comm, copies)?;
        let mine: Vec<&[u8]> = copies.iter().map(|copy| copy.path.as_os_str().as_bytes()).collect();
        let mut all = serde_json::to_vec(&comm.gather_bytes(&mine.join(&0))).unwrap_or_default();
        comm.broadcast(0, &mut all);
        let all: Vec<Vec<u8>> = serde_json::from_slice(&all).map_err(|e| Error::internal("staging", e))?;
        let first = host.members().get(host.index()).and_then(|ranks| ranks.first());
        let here = first.and_then(|&first| all.get(first)).cloned().unwrap_or_default();
        let mut local = here.split(|&byte| byte == 0).map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
        if path.is_some() {
            config.path = local.next();
        }
        if test.is_some() {
            let test = local.next().unwrap_or_default().to_string_lossy().into_owned();
            config.source.table.insert(TEST_PATH.into(), test.into());
        }
        Ok(Self { config, _copies: copies })
    }
}

/// A job whose data are missing says how they can be had.
fn can_be_fetched(config: &DataConfig) -> Result<()> {
    let Some(path) = config.path.as_deref().filter(|path| !is_remote(path) && !path.exists()) else { return Ok(()) };
    let Some((set, folder)) = storage::known_at(&config.source.kind, path) else { return Ok(()) };
    let out = if Path::new(set.folder) == folder { String::new() } else { format!(" --out {}", folder.display()) };
    let mend = format!("set data.path to where the data are, or get them by: ddl fetch {}{out}", set.name);
    Err(Error::io(path, "there is no such file or folder", mend))
}

fn copies(wanted: &[&Path], how: &Staging) -> Result<Vec<Staged>> {
    let stage_one = |path: &&Path| {
        let copy = storage::stage(&path.to_string_lossy(), how)?;
        log::info!("staged to {}, {} bytes of it now", copy.path.display(), copy.fetched);
        Ok(copy)
    };
    wanted.iter().map(stage_one).collect()
}
