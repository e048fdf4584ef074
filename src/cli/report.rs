//! `ddl report`.

use crate::comm::{Comm, on_root};
use crate::error::Result;
use crate::report::{self, Shown};
use crate::train::terminal::say;
use clap::Args;
use std::path::PathBuf;

/// Show runs and scaling studies on one page: curves, confusion or forecasts, seconds by rank, settings and figures side by side
///
/// The page needs no network, and follows the reader's light or dark colours. Each picture is written as SVG and PNG beside it.
#[derive(Args)]
#[command(after_help = "Examples:
  ddl report results/mnist-cnn
  ddl report results/a results/b results/c --out results/compared
  ddl report results/mnist-cnn-scale")]
pub(super) struct Report {
    /// Folders of runs or of scaling studies, or their run.h5 and scale.json
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The folder to write into, instead of `report` in the first one's
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Report {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        on_root(comm, || {
            let shown = Shown::open(&self.runs)?;
            let first = &self.runs[0];
            let beside = if first.is_dir() { first.clone() } else { first.parent().unwrap_or(first).to_owned() };
            let page = report::write(&shown, &self.out.clone().unwrap_or_else(|| beside.join("report")))?;
            say(&format!("wrote {}, and its pictures as SVG and PNG beside it", page.display()));
            Ok(())
        })
    }
}
