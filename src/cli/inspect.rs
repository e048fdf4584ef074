//! `ddl inspect`.

use crate::comm::{Comm, on_root};
use crate::error::Result;
use crate::store;
use crate::train::terminal::say;
use clap::Args;
use std::path::PathBuf;

/// Show what a run, a checkpoint, a safetensors or another HDF5 file holds
#[derive(Args)]
#[command(after_help = "Examples:
  ddl inspect results/mnist-cnn/run.h5
  ddl inspect results/mnist-cnn/checkpoints/step-00001876.h5")]
pub(super) struct Inspect {
    /// The file
    file: PathBuf,
}

impl Inspect {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        on_root(comm, || {
            say(store::inspect::describe(&self.file)?.trim_end());
            Ok(())
        })
    }
}
