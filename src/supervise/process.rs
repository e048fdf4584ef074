//! The launcher as a process: its start, its signals, its end, and what it leaves behind.

use crate::error::{Error, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How many signals asked for an end.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// Signals within this time are one: a terminal and `timeout` send theirs to a process and to its group.
const ONE: Duration = Duration::from_secs(1);
/// After a second signal the launcher has this long to end its ranks, on other hosts too.
const GRACE: Duration = Duration::from_secs(5);
/// A launcher that has no ranks yet drops a warning: it gets another one.
const AGAIN: Duration = Duration::from_secs(3);

extern "C" fn asked(_: libc::c_int) {
    ASKED.fetch_add(1, Ordering::Relaxed);
}

/// Takes TERM, INT, HUP and USR1, and adopts what a killed launcher leaves.
///
/// # Errors
/// Where the system does not let a process adopt others.
pub(super) fn prepare() -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1] {
        // SAFETY: the handler touches an atomic only.
        unsafe {
            // `nohup` asks for HUP to stay ignored.
            if libc::signal(signal, asked as *const () as libc::sighandler_t) == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_IGN);
            }
        }
    }
    set_child_subreaper(Some(rustix::process::getpid())).map_err(|e| Error::internal("supervise", e.to_string()))
}

/// Whether this process was asked to stop.
pub(super) fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed) > 0
}

/// A launcher that runs.
pub(super) struct Process(Child);

impl Process {
    /// In a process group of its own, so that Ctrl-C in a terminal reaches it through this process only; without input,
    /// for which a process behind the terminal would be stopped; and ended when this process ends.
    ///
    /// # Errors
    /// `Usage` where it cannot be started.
    pub fn start(words: &[String]) -> Result<Self> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).process_group(0).stdin(Stdio::null());
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let child = command.spawn();
        child.map(Self).map_err(|e| Error::usage(words[0].clone(), format!("cannot be started: {e}"), "check its path"))
    }

    /// Waits for its end: its exit code, or 128 and the number of the signal that ended it, and the same in words. The first
    /// signal to this process is passed on as USR1, since mpirun kills its ranks two seconds after a TERM; a second one as
    /// TERM, after which the launcher is killed if it does not end.
    pub fn wait(mut self) -> (i32, String) {
        let own = Pid::from_child(&self.0);
        let pass = |signal| {
            // It may have ended by itself.
            let _ = kill_process(own, signal);
        };
        let (mut seen, mut first, mut second, mut warned) = (0, None::<Instant>, None::<Instant>, Instant::now());
        let status = loop {
            if let Ok(Some(status)) = self.0.try_wait() {
                break status;
            }
            let asked = ASKED.load(Ordering::Relaxed);
            match (first, second) {
                (None, _) if asked > seen => {
                    (first, warned) = (Some(Instant::now()), Instant::now());
                    pass(Signal::USR1);
                }
                (Some(at), None) if asked > seen && at.elapsed() > ONE => {
                    second = Some(Instant::now());
                    pass(Signal::TERM);
                }
                (_, Some(at)) if at.elapsed() > GRACE => pass(Signal::KILL),
                (Some(_), None) if warned.elapsed() > AGAIN => {
                    warned = Instant::now();
                    pass(Signal::USR1);
                }
                _ => {}
            }
            seen = asked;
            std::thread::sleep(Duration::from_millis(10));
        };
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)), status.to_string())
    }
}

/// Ends all children that are left, and theirs as they become ours. How many there were.
pub(super) fn end_orphans() -> usize {
    let own = std::process::id();
    let mut count = 0;
    loop {
        let text = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        for child in text.split_whitespace().filter_map(|number| Pid::from_raw(number.parse().ok()?)) {
            let _ = kill_process(child, Signal::KILL);
        }
        if waitpid(None, WaitOptions::empty()).is_err() {
            return count;
        }
        count += 1;
    }
}
