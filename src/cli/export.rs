//! `ddl export`.

use crate::comm::{Comm, on_root};
use crate::error::{Error, Result};
use crate::export::{self, Form};
use crate::store::{checkpoint, protect};
use crate::train::terminal::say;
use clap::Args;
use std::path::PathBuf;

/// Write a checkpoint for use elsewhere: the network as ONNX, or its weights with keys and layouts of a torch.nn.Sequential
#[derive(Args)]
#[command(after_help = "Examples:
  ddl export results/mnist-cnn/checkpoints/step-00001876.h5 --to mnist-cnn.safetensors
  ddl export results/mnist-cnn/checkpoints/step-00001876.h5 --to mnist-cnn.onnx --with-normalization")]
pub(super) struct Export {
    /// The checkpoint
    checkpoint: PathBuf,
    /// The file to write; its ending says the form: .safetensors, .npz or .onnx
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Of ONNX: have the graph normalise its input, and give values in the data's own units (not of windows over series)
    #[arg(long)]
    with_normalization: bool,
}

impl Export {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        on_root(comm, || {
            let form = Form::of(&self.to)?;
            if self.with_normalization && form != Form::Onnx {
                let what = "weights alone have no place for it";
                return Err(Error::usage("--with-normalization", what, "use it with the ending .onnx"));
            }
            protect("--to", &self.to, [self.checkpoint.as_path()])?;
            let checkpoint = checkpoint::read_network(&self.checkpoint)?;
            let written = export::write(&checkpoint, &self.to, form, self.with_normalization)?;
            say(&format!("wrote {written} to {}", self.to.display()));
            Ok(())
        })
    }
}
