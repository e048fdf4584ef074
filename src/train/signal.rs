//! A request to stop: USR1 (a scheduler's warning), TERM or INT. Ranks agree on it in the step's own sum.

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process was asked to stop.
#[derive(Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

/// Lets a write beyond a limit on the size of files (`ulimit -f`) fail as on a full disk, instead of ending the process.
pub fn survive_file_limits() {
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

impl StopFlag {
    /// Listens to USR1 from now on: a scheduler's warning may come while the data is still being read.
    pub fn listen() -> Self {
        let flag = Self::default();
        // Ignored where it fails, here and below: the signal then ends the process as it would without us.
        let _ = signal_hook::flag::register(SIGUSR1, flag.0.clone());
        flag
    }

    /// Listens to INT and TERM, too, once there is something to save. The second one ends the process at once.
    pub fn listen_to_interrupts(&self) {
        for signal in [SIGINT, SIGTERM] {
            let _ = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, self.0.clone());
            let _ = signal_hook::flag::register(signal, self.0.clone());
        }
    }

    /// Whether one came.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
