//! Where the time of an epoch goes.

pub use crate::comm::Phase;
use crate::comm::watch;
use std::time::Instant;

/// Seconds by phase.
#[derive(Debug, Clone)]
pub struct Clock {
    seconds: [f64; Phase::ALL.len()],
    since: Instant,
    phase: Option<Phase>,
}

impl Clock {
    /// All zero, in no phase.
    pub fn start() -> Self {
        Self { seconds: [0.0; Phase::ALL.len()], since: Instant::now(), phase: None }
    }

    /// What passes from now on belongs to `phase`.
    pub fn enter(&mut self, phase: Phase) {
        self.turn(Some(phase));
    }

    /// What passes from now on belongs to nothing.
    pub fn leave(&mut self) {
        self.turn(None);
    }

    fn turn(&mut self, next: Option<Phase>) {
        let now = Instant::now();
        if let Some(phase) = self.phase {
            self.seconds[phase as usize] += (now - self.since).as_secs_f64();
        }
        (self.since, self.phase) = (now, next);
        watch::enter(next);
    }

    /// So many of the seconds counted as one phase's were another's.
    pub fn shift(&mut self, from: Phase, to: Phase, seconds: f64) {
        let seconds = seconds.min(self.seconds[from as usize]);
        self.seconds[from as usize] -= seconds;
        self.seconds[to as usize] += seconds;
    }

    /// The seconds so far, by phase, starting again at zero.
    pub fn take(&mut self) -> [f64; Phase::ALL.len()] {
        std::mem::take(&mut self.seconds)
    }
}
