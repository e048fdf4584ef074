//! The launcher as a process: its start, its signals, its end, and what it leaves behind.

use crate::error::{Error, Result};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How many signals asked for an end.
static ASKED: AtomicU32 = AtomicU32::new(0);

extern "C" fn asked(_: libc::c_int) {
    ASKED.fetch_add(1, Ordering::Relaxed);
}

/// Takes TERM, INT and USR1, and adopts what a killed launcher leaves.
///
/// # Errors
/// Where the system does not let a process adopt others.
pub(super) fn prepare() -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
        // SAFETY: the handler touches an atomic only.
        unsafe { libc::signal(signal, asked as *const () as libc::sighandler_t) };
    }
    // SAFETY: a plain system call.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } {
        0 => Ok(()),
        _ => Err(Error::internal("supervise", std::io::Error::last_os_error().to_string())),
    }
}

/// How a command ended.
pub(super) struct Ended {
    /// Its exit code, or 128 and the number of the signal that ended it.
    pub code: i32,
    pub how: String,
    /// Whether this process had been asked to stop.
    pub stopped: bool,
}

/// A launcher that runs.
pub(super) struct Process(Child);

impl Process {
    /// In a process group of its own, so that Ctrl-C in a terminal reaches it through this process only.
    pub fn start(words: &[String]) -> Result<Self> {
        let child = Command::new(&words[0]).args(&words[1..]).process_group(0).spawn();
        child.map(Self).map_err(|e| Error::usage(words[0].clone(), format!("cannot be started: {e}"), "check its path"))
    }

    /// Waits for its end. The first signal is passed on as USR1, since mpirun kills its ranks two seconds after a TERM;
    /// the second ends all at once.
    pub fn wait(mut self) -> Ended {
        let mut passed = 0;
        let status = loop {
            if let Ok(Some(status)) = self.0.try_wait() {
                break status;
            }
            let asked = ASKED.load(Ordering::Relaxed);
            if asked > passed {
                let signal = if asked > 1 { libc::SIGKILL } else { libc::SIGUSR1 };
                // SAFETY: a plain system call; the child was not waited for, so that the number is still its own.
                unsafe { libc::kill(self.0.id() as i32, signal) };
                passed = asked;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ended { code, how: status.to_string(), stopped: ASKED.load(Ordering::Relaxed) > 0 }
    }
}

/// Ends all children that are left, and theirs as they become ours. How many there were.
pub(super) fn end_orphans() -> usize {
    let own = std::process::id();
    let mut count = 0;
    loop {
        let text = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        for child in text.split_whitespace().filter_map(|number| number.parse::<i32>().ok()) {
            // SAFETY: a plain system call on a child that was not waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        // SAFETY: a plain system call that may be given no place for the status.
        if unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } <= 0 {
            return count;
        }
        count += 1;
    }
}
