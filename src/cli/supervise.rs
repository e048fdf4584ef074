//! `ddl supervise`.

use crate::comm;
use crate::error::{Error, Result};
use crate::supervise::{Line, supervise};
use clap::Args;

/// Start a training again after a failure, from its newest good checkpoint, until it is done
///
/// TERM, INT and USR1 let the training save a checkpoint and stop (exit code 75); a second one ends it at once.
#[derive(Args)]
#[command(after_help = "Example:
  ddl supervise -- mpirun -n 4 ddl train jobs/mnist-cnn.toml --out results/mnist-cnn")]
pub(super) struct Supervise {
    /// Give up after so many failures without a new checkpoint
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    max_failures: u32,
    /// The command: a launcher with its options, and ddl train with --out
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Supervise {
    /// Without MPI, which the command starts.
    pub(super) fn run(self) -> Result<()> {
        if comm::launched().is_some_and(|launcher| launcher.name != "srun" && launcher.size != Some(1)) {
            return Err(Error::usage("supervise", "runs under a launcher", "write ddl supervise -- mpirun …"));
        }
        supervise(&Line::new(self.command)?, self.max_failures, &|text| eprintln!("supervise: {text}"))
    }
}
