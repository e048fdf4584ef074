//! `ddl doctor`.

use crate::comm::Comm;
use crate::doctor;
use crate::error::{Error, Result};
use clap::Args;
use std::path::PathBuf;

/// Look for what would go wrong on this machine, each with its mend
///
/// Checks the launcher and its MPI, libraries, cores and binding of ranks, instruction set, limits of containers, shared
/// memory, huge pages, clock and disks. Exit code 0 when nothing serious is found. Start it as you will start ddl train.
#[derive(Args)]
#[command(after_help = "Examples:
  ddl doctor
  mpirun -n 4 --bind-to core ddl doctor
  srun --mpi=pmix -n 64 ddl doctor --out /scratch/results")]
pub(super) struct Doctor {
    /// The folder that results will go to
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
}

impl Doctor {
    /// `trouble` is why the ranks could not become one job.
    pub(super) fn run(&self, comm: &dyn Comm, trouble: Option<&Error>) -> Result<()> {
        doctor::run(comm, trouble, &self.out)
    }
}
