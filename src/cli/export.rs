//! `ddl export`.

use crate::comm::{Comm, on_root};
use crate::error::{Error, Result};
use crate::store::{checkpoint, protect, weights};
use crate::train::terminal::say;
use clap::Args;
use std::path::PathBuf;

/// Write a checkpoint's weights for use elsewhere: keys and layouts of a torch.nn.Sequential
#[derive(Args)]
#[command(after_help = "Example:
  ddl export results/mnist-cnn/checkpoints/step-00001876.h5 --to mnist-cnn.safetensors")]
pub(super) struct Export {
    /// The checkpoint
    checkpoint: PathBuf,
    /// The file to write; its ending says the format: .safetensors
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl Export {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        on_root(comm, || {
            let ending = self.to.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
            if ending != "safetensors" {
                let what = format!("cannot write a .{ending} file");
                return Err(Error::usage(format!("--to {}", self.to.display()), what, "use the ending .safetensors"));
            }
            protect("--to", &self.to, [self.checkpoint.as_path()])?;
            let checkpoint = checkpoint::read_network(&self.checkpoint)?;
            weights::export_safetensors(&self.to, &checkpoint.model, checkpoint.step)?;
            say(&format!("wrote {} tensors to {}", checkpoint.model.len(), self.to.display()));
            Ok(())
        })
    }
}
