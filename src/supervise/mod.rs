//! Starts a training again after a failure, from its newest good checkpoint, until it is done.
//!
//! It wraps the launcher (`mpirun`, `srun`) as a process of this one. A launcher that is killed leaves its ranks behind:
//! they become children of this process (a subreaper) and are ended before the next start. The same number of ranks is
//! started again, since a killed rank does not mean a broken core.

mod line;
mod process;

pub use line::Line;

use crate::error::{Error, Result};
use crate::store;
use process::{Ended, Process};
use std::path::Path;
use std::time::Instant;

/// What has failed in a row since the newest checkpoint.
#[derive(Default)]
struct Failures {
    count: u32,
    newest: Option<u64>,
}

impl Failures {
    /// One more failure, with `newest` as the newest checkpoint's step. How many there are without a newer one.
    fn add(&mut self, newest: Option<u64>) -> u32 {
        self.count = if self.count > 0 && newest == self.newest { self.count + 1 } else { 1 };
        self.newest = newest;
        self.count
    }
}

/// Runs `line` until it is done or asked to stop. Each start and failure is told to `log`.
///
/// # Errors
/// The command's own exit code where it stopped early (75), where no restart mends it (2, 65), or after `allowed`
/// failures without a new checkpoint; an error where the command cannot be started.
pub fn supervise(line: &Line, allowed: u32, log: &dyn Fn(&str)) -> Result<()> {
    process::prepare()?;
    let mut failures = Failures::default();
    let mut again = false;
    loop {
        let ended = Process::start(&line.words(again))?.wait();
        let died = Instant::now();
        let orphans = process::end_orphans();
        if orphans > 0 {
            log(&format!("{orphans} processes outlived the command and were ended"));
        }
        let Ended { code, how, stopped } = ended;
        let place = "supervise".to_owned();
        let end = |what: String, mend: &str| Err(Error::Ended { place, what, mend: mend.into(), code });
        match code {
            0 => return Ok(()),
            75 => {
                return end(format!("the command stopped early ({how})"), "run the same command again, with --resume");
            }
            2 | 65 => return end(format!("no restart mends this ({how})"), "see the error above"),
            _ if stopped => return end(format!("asked to stop, the command ended ({how})"), "run again with --resume"),
            _ => (),
        }
        let newest = newest(&line.out);
        let count = failures.add(newest);
        let from = newest.map_or("the beginning".to_owned(), |step| format!("step {step}"));
        if count >= allowed {
            return end(format!("{how}; {count} failures without a checkpoint after {from}"), "see the errors above");
        }
        let seconds = died.elapsed().as_secs_f64();
        log(&format!("failure {count} of {allowed} ({how}): starting again from {from}, {seconds:.2} s after it"));
        again = true;
    }
}

/// The step of the newest whole checkpoint of a run.
fn newest(out: &Path) -> Option<u64> {
    let (found, _) = store::checkpoint::newest_good(&out.join("checkpoints")).ok()?;
    Some(found?.1.step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_anew_after_a_checkpoint() {
        let mut failures = Failures::default();
        let counts = [None, None, Some(4), Some(4), Some(8)].map(|newest| failures.add(newest));
        assert_eq!(counts, [1, 2, 1, 2, 1]);
    }
}
