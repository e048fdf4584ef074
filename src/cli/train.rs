//! `ddl train`.

use super::agree_on_job;
use crate::comm::Comm;
use crate::config::{Job, Override};
use crate::error::Result;
use crate::train::{Options, train};
use clap::Args;
use std::path::PathBuf;

/// Train a network
#[derive(Args, Default)]
#[command(after_help = "Examples:
  mpirun -n 4 ddl train jobs/mnist-cnn.toml
  ddl train jobs/sp500-lstm.toml --set train.epochs=2 --set optimizer.lr=0.01 --out /tmp/try
  mpirun -n 3 ddl train jobs/cifar10-bncnn.toml --resume --max-hours 23.5
  ddl train jobs/mnist-cnn.toml --out s3://bucket/runs/mnist
  ddl train jobs/cifar10-simplecnn.toml --init weights.safetensors --dry-run")]
pub(super) struct Train {
    /// The job file; without it the built-in example
    job: Option<PathBuf>,
    /// Set a key of the job, such as train.epochs=3 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder for run.h5 and checkpoints/, or a URL to copy them to at the end [default: results/<name>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the newest good checkpoint, on any number of ranks; harmless on a first run
    #[arg(long)]
    resume: bool,
    /// Start from the weights of a safetensors file or a checkpoint
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Check everything, print the model table and the plan, train nothing
    #[arg(long)]
    dry_run: bool,
    /// Stop with a checkpoint and exit code 75 after so many hours; under Slurm a run also stops before its job's end
    #[arg(long, value_name = "HOURS", value_parser = hours)]
    max_hours: Option<f64>,
}

/// A number of hours.
fn hours(text: &str) -> std::result::Result<f64, String> {
    let hours = text.parse().ok().filter(|hours: &f64| *hours > 0.0 && hours.is_finite());
    hours.ok_or_else(|| "give a number above 0, such as 23.5".to_owned())
}

/// The example that runs without arguments.
const EXAMPLE: &str = include_str!("../../jobs/example.toml");

impl Train {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        let job = agree_on_job(comm, self.load())?;
        let Train { out, resume, init, dry_run, max_hours, .. } = self;
        train(&job, &Options { out, resume, init, dry_run, max_hours }, comm)
    }

    fn load(&self) -> Result<Job> {
        let overrides = overrides(&self.set)?;
        match &self.job {
            Some(path) => Job::load(path, &overrides),
            None => {
                let mut job = Job::parse(EXAMPLE, "built-in example", &overrides)?;
                job.data.path = job.data.path.map(shipped);
                Ok(job)
            }
        }
    }
}

/// The environment's overrides, then the command line's.
pub(super) fn overrides(set: &[String]) -> Result<Vec<Override>> {
    let mut overrides = Override::from_environment();
    for assignment in set {
        overrides.push(Override::parse(assignment)?);
    }
    Ok(overrides)
}

/// The shipped sample, seen from the working folder or else from where the program lies in a checkout.
fn shipped(path: PathBuf) -> PathBuf {
    if path.exists() {
        return path;
    }
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().map(|folder| folder.join(&path)).find(|candidate| candidate.exists()).unwrap_or(path)
}
