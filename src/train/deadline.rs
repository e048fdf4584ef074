//! When a run must end: `--max-hours`, or the end of the Slurm job that it runs in. It then stops as by USR1, with a
//! checkpoint and exit code 75.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Of a Slurm job's end, as seconds since 1970; set in the job's environment.
const SLURM_END: &str = "SLURM_JOB_END_TIME";
/// How long before a Slurm job's end a run stops: a step and a checkpoint must fit; at most a tenth of what is left.
const RESERVE: Duration = Duration::from_secs(60);

/// When a run must end, and why.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    at: Instant,
    why: &'static str,
    after: Duration,
}

impl Deadline {
    /// The earlier of the two, where there is one; `max_hours` are counted from now.
    pub fn of(max_hours: Option<f64>) -> Option<Self> {
        let end = std::env::var(SLURM_END).ok().and_then(|end| end.trim().parse().ok());
        Self::between(max_hours, end, SystemTime::now())
    }

    fn between(max_hours: Option<f64>, slurm_end: Option<u64>, now: SystemTime) -> Option<Self> {
        let asked = max_hours.and_then(|hours| Duration::try_from_secs_f64(3600.0 * hours).ok());
        // One in the past is of another job.
        let end = slurm_end.and_then(|end| UNIX_EPOCH.checked_add(Duration::from_secs(end)));
        let left = end.and_then(|end| end.duration_since(now).ok());
        let until = left.map(|left| left - RESERVE.min(left / 10));
        let choices = [(asked, "--max-hours"), (until, "before the Slurm job's end")];
        let (after, why) = choices.into_iter().filter_map(|(after, why)| Some((after?, why))).min()?;
        // One that is too far for a clock is none.
        Some(Self { at: Instant::now().checked_add(after)?, why, after })
    }

    /// Whether it is over.
    pub fn has_passed(&self) -> bool {
        Instant::now() >= self.at
    }
}

impl std::fmt::Display for Deadline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stops with a checkpoint after {:.2} hours ({})", self.after.as_secs_f64() / 3600.0, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_end_counts_and_slurm_leaves_time_for_a_checkpoint() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let after =
            |hours: Option<f64>, end: Option<u64>| Deadline::between(hours, end, now).map(|d| d.after.as_secs());
        assert_eq!(after(None, None), None);
        assert_eq!(after(Some(0.5), None), Some(1800));
        assert_eq!(after(None, Some(1_003_600)), Some(3540));
        assert_eq!(after(None, Some(1_000_100)), Some(90));
        assert_eq!(after(Some(0.5), Some(1_003_600)), Some(1800));
        assert_eq!(after(Some(2.0), Some(1_003_600)), Some(3540));
        assert_eq!((after(None, Some(999_000)), after(None, Some(u64::MAX))), (None, None));
        assert_eq!(after(Some(1e300), None), None);
        assert!(Deadline::between(Some(0.0), None, now).unwrap().has_passed());
        assert!(!Deadline::between(Some(1.0), None, now).unwrap().has_passed());
    }
}
