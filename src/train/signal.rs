//! A request to stop: USR1 (a scheduler's warning), TERM, INT or HUP. Ranks agree on it in the step's own sum.

use libc::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ, c_int};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process was asked to stop.
static ASKED: AtomicBool = AtomicBool::new(false);
/// Whether it was asked by TERM, INT or HUP.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Remembers USR1 from now on, and one that waits since before: a scheduler's warning may come while libraries are still
/// being loaded. May be called before `main`, and again.
pub extern "C" fn remember_warnings() {
    handle(SIGUSR1, noted);
    // SAFETY: zeros are a valid set of signals. Whoever started this process may have held the signal back until now.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&mut set, SIGUSR1);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

/// Lets a write beyond a limit on the size of files (`ulimit -f`) fail as on a full disk, instead of ending the process.
pub fn survive_file_limits() {
    handle(SIGXFSZ, survived);
}

/// What this process was asked.
#[derive(Debug, Clone, Copy)]
pub struct StopFlag;

impl StopFlag {
    /// Listens to USR1, as the program has done since its start.
    pub fn listen() -> Self {
        remember_warnings();
        Self
    }

    /// Listens to INT, TERM and HUP, too, once there is something to save. The second one ends the process at once. Those
    /// that were ignored when the process started stay so: `nohup` and shells ask for that.
    pub fn listen_to_interrupts(&self) {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if !is_ignored(signal) {
                handle(signal, interrupted);
            }
        }
    }

    /// Whether one came.
    pub fn is_set(&self) -> bool {
        ASKED.load(Ordering::Relaxed)
    }
}

extern "C" fn noted(_: c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

extern "C" fn interrupted(signal: c_int) {
    if INTERRUPTED.swap(true, Ordering::Relaxed) {
        // SAFETY: may be called in a handler.
        unsafe { libc::_exit(128 + signal) };
    }
    ASKED.store(true, Ordering::Relaxed);
}

extern "C" fn survived(_: c_int) {}

/// Where it fails the signal ends the process, as it would without us.
fn handle(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: zeros are a valid sigaction; the handlers touch atomics only. System calls go on behind them.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

fn is_ignored(signal: c_int) -> bool {
    // SAFETY: zeros are a valid sigaction, which the call overwrites.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}
