//! A trial of foreign HDF5 files in a process of its own: the HDF5 library may crash or never come back on a damaged
//! one, and a rank that dies takes the job with it. Our own files need none, since their seal is checked first.

use super::{inspect, table};
use crate::error::{Error, Result};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The hidden command of the program that runs [`run`].
pub const COMMAND: &str = "probe";

/// Whether this process is the program, which can be started again; a test or another user of the library is not.
static ENABLED: AtomicBool = AtomicBool::new(false);

/// Says that the running program answers to [`COMMAND`].
pub fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

/// Reads all of a file, whatever comes of it. A clean error is no concern here: the real reading meets it again.
pub fn run(path: &Path) {
    let _ = inspect::tree_text(path);
    for name in table::contents(path).unwrap_or_default().datasets {
        let _ = table::read(path, &name);
    }
}

/// Lets another process read the file first.
///
/// # Errors
/// `Data` if that process crashed or did not end.
pub(super) fn survives(path: &Path) -> Result<()> {
    if !ENABLED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mend = "it is damaged: get it anew";
    let crashed = |what: String| Err(Error::data(path.display().to_string(), what, mend));
    let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
    match ended(path, Duration::from_secs(10 + bytes / 10_000_000)) {
        Some(status) if status.success() => Ok(()),
        Some(status) => crashed(format!("reading it crashes the HDF5 library ({status})")),
        None => crashed("reading it does not come to an end".into()),
    }
}

/// How the trial ended; None if it was stopped at its limit. If it cannot even start, the file is given a chance.
fn ended(path: &Path, limit: Duration) -> Option<ExitStatus> {
    let started = std::env::current_exe().and_then(|program| {
        let streams = (Stdio::null(), Stdio::null(), Stdio::null());
        let mut command = Command::new(program);
        command.arg(COMMAND).arg("--").arg(path).stdin(streams.0).stdout(streams.1).stderr(streams.2).spawn()
    });
    let Ok(mut child) = started else { return Some(ExitStatus::default()) };
    let began = Instant::now();
    while began.elapsed() < limit {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(_) => return Some(ExitStatus::default()),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
