//! How far a download is: a bar on a terminal, a line now and then elsewhere.

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a plain line tells, and when the first one does.
const PLAIN_EVERY: Duration = Duration::from_secs(15);
const PLAIN_FIRST: Duration = Duration::from_secs(3);

/// The progress of one download.
pub(super) struct Progress {
    label: String,
    total: u64,
    done: u64,
    bar: Option<ProgressBar>,
    /// When the next plain line is due; None: nothing is shown.
    next: Option<Instant>,
    began: Instant,
}

impl Progress {
    /// Of `total` bytes, of which `done` are there.
    pub fn start(label: String, total: u64, done: u64, show: bool) -> Self {
        let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        // An MPI rank's own standard output is a pseudo-terminal; only on standard error a person watches.
        let bar = (show && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(label.clone());
            bar.set_position(done);
            bar
        });
        let next = (show && bar.is_none()).then(|| Instant::now() + PLAIN_FIRST);
        Self { label, total, done, bar, next, began: Instant::now() }
    }

    /// More came.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done.min(self.total));
        }
        if self.next.is_some_and(|next| Instant::now() > next) {
            self.next = Some(Instant::now() + PLAIN_EVERY);
            let seconds = self.began.elapsed().as_secs();
            let line = format!("{}: {} of {}, {seconds} s", self.label, HumanBytes(self.done), HumanBytes(self.total));
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// What came has to come again.
    pub fn take_back(&mut self, bytes: u64) {
        self.done = self.done.saturating_sub(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
