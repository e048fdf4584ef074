//! A trial of foreign HDF5 files in a process of its own: the HDF5 library may crash or never come back on a damaged
//! one, and a rank that dies takes the job with it. Our own files need none, since their seal is checked first.

use super::rows::Rows;
use super::{inspect, table};
use crate::error::{Error, Result};
use crate::resource::memory;
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

/// Of an array, so many pieces of about so many bytes are read, spread over it: all of one that is not larger.
const PIECES: usize = 256;
const PIECE_BYTES: usize = 1 << 22;

/// Reads a file as it will be read, whatever comes of it. A clean error is no concern here: the real reading meets it again.
pub fn run(path: &Path) {
    let _ = inspect::tree_text(path);
    for name in table::contents(path).unwrap_or_default().datasets {
        match Rows::open(path, &name) {
            // What the library does not read cannot trouble it.
            Ok(Some(rows)) if rows.is_direct() => {}
            Ok(Some(rows)) => read_pieces(&rows),
            _ => {
                let _ = table::read(path, &name);
            }
        }
    }
}

fn read_pieces(rows: &Rows) {
    let (count, row) = (rows.shape[0], rows.row());
    let piece = (PIECE_BYTES / (8 * row)).clamp(1, count);
    let step = piece.max(count.div_ceil(PIECES));
    let mut values = Vec::new();
    if memory::reserve(&mut values, piece * row).is_err() {
        return;
    }
    values.resize(piece * row, 0.0);
    for first in (0..count).step_by(step) {
        let rows_here = first..count.min(first + piece);
        let _ = rows.floats(rows_here.clone(), &mut values[..rows_here.len() * row]);
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
