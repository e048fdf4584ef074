//! `ddl fetch`.

use crate::comm::{Comm, on_root};
use crate::config::nearest;
use crate::data::storage::{CATALOG, Known, Staging, fetch_known};
use crate::error::{Error, Result};
use crate::train::terminal::{is_quiet, say};
use clap::Args;
use std::path::PathBuf;

/// Download a well-known data set, checked and gone on with where it broke off
#[derive(Args)]
#[command(after_help = "Sets:
  mnist          60,000 and 10,000 handwritten digits, 11 MB
  fashion-mnist  pictures of clothes in the same form, 31 MB
  cifar10        50,000 and 10,000 colour pictures of 10 classes, 162 MB
  cifar100       the same of 100 classes, 161 MB
  sp500          daily prices of 505 companies; only from a mirror, since its official place wants a login

Examples:
  ddl fetch mnist
  ddl fetch cifar10 --mirror https://mirror.example.org/cifar --out /scratch/cifar10
  ddl fetch sp500 --mirror ~/Downloads")]
pub(super) struct Fetch {
    /// Which one
    name: String,
    /// A URL or a local folder that holds the same files, instead of the official places
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Where to put it [default: the folder in which the jobs look for it, such as data/cifar10]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Fetch {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        on_root(comm, || {
            let set = self.set()?;
            let out = self.out.unwrap_or_else(|| PathBuf::from(set.folder));
            let how = Staging { source: set.source.into(), show: !is_quiet(), ..Staging::default() };
            for line in fetch_known(set, self.mirror.as_deref(), &out, &how)? {
                say(&line);
            }
            Ok(())
        })
    }

    fn set(&self) -> Result<&'static Known> {
        CATALOG.iter().find(|set| set.name == self.name).ok_or_else(|| {
            let names = CATALOG.iter().map(|set| set.name);
            let list = names.clone().collect::<Vec<_>>().join(", ");
            let mend = match nearest(&self.name, names) {
                Some(near) => format!("did you mean {near}? Known: {list}"),
                None => format!("known: {list}"),
            };
            Error::usage(format!("ddl fetch {}", self.name), "no such data set", mend)
        })
    }
}
