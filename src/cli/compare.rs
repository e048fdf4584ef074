//! `ddl compare`.

use crate::comm::{Comm, on_root};
use crate::compare::{Side, compare};
use crate::error::{Error, Result};
use crate::train::terminal::say;
use clap::Args;
use std::path::PathBuf;

/// Find where two runs or checkpoints differ: settings, metrics, the first step, tensor and element; or that they are the same
///
/// Everything is compared by bits. Exit code 0: the same; 1: they differ.
#[derive(Args)]
#[command(after_help = "Examples:
  ddl compare results/a results/b
  ddl compare results/a/checkpoints/step-00000100.h5 results/b/checkpoints/step-00000100.h5 --json")]
pub(super) struct Compare {
    /// A run's folder, its run.h5, or a checkpoint
    a: PathBuf,
    /// Another one
    b: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        on_root(comm, || {
            let comparison = compare(&Side::open(&self.a)?, &Side::open(&self.b)?)?;
            say(&match self.json {
                true => serde_json::json!({ "same": comparison.is_same(), "comparison": comparison }).to_string(),
                false => comparison.to_string(),
            });
            if comparison.is_same() { Ok(()) } else { Err(Error::Differs) }
        })
    }
}
