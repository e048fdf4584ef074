//! `ddl bench`: one file a measurement.

mod reduce;
mod step;

use crate::comm::Comm;
use crate::error::Result;
use clap::{Args, Subcommand};

/// Measure ddl itself
#[derive(Args)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Step(step::Step),
    Reduce(reduce::Reduce),
}

impl Bench {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        match self.what {
            What::Step(step) => step.run(comm),
            What::Reduce(reduce) => reduce.run(comm),
        }
    }
}
