//! A request to stop: USR1 (a scheduler's warning), TERM or INT. Ranks agree on it in the step's own sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process was asked to stop.
#[derive(Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

/// Lets a write beyond a limit on the size of files (`ulimit -f`) fail as on a full disk, instead of ending the process.
pub fn survive_file_limits() {
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

impl StopFlag {
    /// Listens to the signals from now on. A second INT or TERM ends the process at once.
    pub fn listen() -> Self {
        let flag = Self::default();
        use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
        for signal in [SIGINT, SIGTERM] {
            // Ignored where it fails: the signal then ends the process as it would without us.
            let _ = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag.0.clone());
        }
        for signal in [SIGUSR1, SIGINT, SIGTERM] {
            let _ = signal_hook::flag::register(signal, flag.0.clone());
        }
        flag
    }

    /// Whether one came.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
