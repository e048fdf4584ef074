//! Where the time of an epoch goes.

use std::time::Instant;

/// What a rank can be busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Gathering and normalising samples.
    Data,
    /// The layers forward, and the loss.
    Forward,
    /// The layers backward.
    Backward,
    /// Sums over ranks, waiting for the slowest included.
    Communication,
    /// The update; where blocks are updated as they are summed, estimated from some of them.
    Optimizer,
    /// Writing checkpoints.
    Checkpoint,
    /// Metrics on the test part.
    Evaluation,
}

impl Phase {
    /// All phases with their names in `/timing`.
    pub const ALL: [(Phase, &'static str); 7] = [
        (Phase::Data, "data"),
        (Phase::Forward, "forward"),
        (Phase::Backward, "backward"),
        (Phase::Communication, "communication"),
        (Phase::Optimizer, "optimizer"),
        (Phase::Checkpoint, "checkpoint"),
        (Phase::Evaluation, "evaluation"),
    ];
}

/// Seconds by phase.
#[derive(Debug, Clone)]
pub struct Clock {
    seconds: [f64; Phase::ALL.len()],
    since: Instant,
}

impl Clock {
    /// All zero, from now.
    pub fn start() -> Self {
        Self { seconds: [0.0; Phase::ALL.len()], since: Instant::now() }
    }

    /// What has passed since the last call belongs to nothing.
    pub fn skip(&mut self) {
        self.since = Instant::now();
    }

    /// What has passed since the last call belongs to `phase`.
    pub fn lap(&mut self, phase: Phase) {
        let now = Instant::now();
        self.seconds[phase as usize] += (now - self.since).as_secs_f64();
        self.since = now;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_lie_where_their_number_says() {
        for (index, (phase, _)) in Phase::ALL.iter().enumerate() {
            assert_eq!(*phase as usize, index);
        }
    }
}
