//! Starts a training again after a failure, from its newest good checkpoint, until it is done.
//!
//! It wraps the launcher (`mpirun`, `srun`) as a process of this one. A launcher that is killed leaves its ranks behind:
//! they become children of this process (a subreaper) and are ended before the next start. The same number of ranks is
//! started again, since a killed rank does not mean a broken core.

mod line;
mod process;

pub use line::Line;

use crate::error::{Error, Result};
use crate::store::checkpoint;
use process::Process;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What has failed in a row since the newest checkpoint.
#[derive(Default)]
struct Failures {
    count: u32,
    newest: Option<u64>,
}

impl Failures {
    /// One more failure, with `newest` as the newest checkpoint's step. How many there are without another one.
    fn add(&mut self, newest: Option<u64>) -> u32 {
        self.count = if self.count > 0 && newest == self.newest { self.count + 1 } else { 1 };
        self.newest = newest;
        self.count
    }
}

/// A run that was in the folder before: the first start moves it aside, unless it dies too early.
struct Earlier<'a> {
    out: &'a Path,
    /// The number of the folder of its checkpoints.
    folder: Option<u64>,
}

impl<'a> Earlier<'a> {
    fn of(out: &'a Path) -> Self {
        let holds = newest(out).is_some() || ["run.h5", "run.journal"].iter().any(|name| out.join(name).exists());
        Self { out, folder: Self::number(out).filter(|_| holds) }
    }

    fn number(out: &Path) -> Option<u64> {
        std::fs::metadata(out.join("checkpoints")).ok().map(|folder| folder.ino())
    }

    /// Whether what is in the folder is still that run's.
    fn is_still_there(&self) -> bool {
        self.folder.is_some() && Self::number(self.out) == self.folder
    }
}

/// Runs `line` until it is done or asked to stop. Each failure is told to `log`.
///
/// # Errors
/// The command's own exit code where it was asked to stop (75 with a checkpoint), where no restart mends it (2, 65, or 70
/// twice without a new checkpoint in between), or after `allowed` failures without one; `Usage` where it cannot be started.
pub fn supervise(line: &Line, allowed: u32, log: &dyn Fn(&str)) -> Result<()> {
    process::prepare()?;
    let (earlier, mut failures, mut again) = (Earlier::of(&line.out), Failures::default(), false);
    loop {
        if process::is_asked() {
            let code = if newest(&line.out).is_some() { 75 } else { 128 + libc::SIGTERM };
            return Err(ended("asked to stop before a start".into(), "run it again, with --resume", code));
        }
        let (code, how) = Process::start(&line.words(again))?.wait();
        let orphans = process::end_orphans();
        if orphans > 0 {
            log(&format!("{orphans} processes outlived the command and were ended"));
        }
        let end = |what: String, mend: &str| Err(ended(what, mend, code));
        match code {
            0 => return Ok(()),
            75 => {
                return end(format!("the command stopped early ({how})"), "run the same command again, with --resume");
            }
            2 | 65 => return end(format!("no restart mends this ({how})"), "see the error above"),
            _ if process::is_asked() => {
                return end(format!("asked to stop, the command ended ({how})"), "run it again, with --resume");
            }
            _ => {}
        }
        let newest = newest(&line.out);
        let count = failures.add(newest);
        again = !earlier.is_still_there();
        let from = match newest.filter(|_| again || line.resumes()) {
            Some(step) => format!("the checkpoint of step {step}"),
            None => "the beginning".to_owned(),
        };
        if count >= if code == 70 { allowed.min(2) } else { allowed } {
            return end(format!("{how}; {count} failures without a new checkpoint"), "see the errors above");
        }
        log(&format!("failure {count} of {allowed} ({how}): starting again from {from}"));
    }
}

/// An end of the command, with its exit code.
fn ended(what: String, mend: &str, code: i32) -> Error {
    Error::Ended { place: "supervise".into(), what, mend: mend.into(), code }
}

/// The step of the newest whole checkpoint of a run.
fn newest(out: &Path) -> Option<u64> {
    checkpoint::newest_whole(&out.join("checkpoints")).ok()?
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

    #[test]
    fn an_earlier_run_is_told_from_the_one_that_took_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        assert!(!Earlier::of(out).is_still_there());
        std::fs::create_dir(out.join("checkpoints")).unwrap();
        // An empty folder is no run: what comes into it is the new one's.
        assert!(!Earlier::of(out).is_still_there());
        std::fs::write(out.join("run.h5"), "").unwrap();
        let earlier = Earlier::of(out);
        assert!(earlier.is_still_there());
        std::fs::rename(out.join("checkpoints"), out.join("earlier")).unwrap();
        std::fs::create_dir(out.join("checkpoints")).unwrap();
        assert!(!earlier.is_still_there());
    }
}
