//! `ddl verify`.

use crate::comm::{Comm, on_root};
use crate::error::{Error, Result};
use crate::store::{self, Verified};
use crate::train::terminal::say;
use clap::Args;
use std::path::{Path, PathBuf};

/// Say whether runs, checkpoints and other files are whole, by their checksums
///
/// Exit code 0: all are whole; 65: one is damaged; 74: one cannot be read.
#[derive(Args)]
#[command(after_help = "Examples:
  ddl verify results/mnist-cnn
  ddl verify results/*/checkpoints/*.h5 --json")]
pub(super) struct Verify {
    /// Files, or folders of runs
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object a file instead of text
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        on_root(comm, || {
            let mut files = Vec::new();
            for path in &self.files {
                match path.is_dir() {
                    true => files.extend(store::files_in(path)?),
                    false => files.push(path.clone()),
                }
            }
            if files.is_empty() {
                let place = self.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
                let mend = "give the folder of a run, or files";
                return Err(Error::usage(place, "there is no .h5 or .safetensors file", mend));
            }
            let mut failed = Vec::new();
            for path in &files {
                let found = store::verify(path);
                say(&self.line(path, &found));
                failed.extend(found.err());
            }
            // One that cannot be read says less than one that is damaged.
            let damaged = failed.iter().position(|error| matches!(error, Error::Data { .. })).unwrap_or(0);
            let count = failed.len();
            match failed.into_iter().nth(damaged) {
                None => Ok(()),
                Some(error) if count == 1 => Err(error),
                Some(Error::Data { place, what, mend }) => {
                    Err(Error::Data { place, what: format!("{what}; {} more are not whole", count - 1), mend })
                }
                Some(error) => Err(error),
            }
        })
    }

    fn line(&self, path: &Path, found: &Result<Verified>) -> String {
        let path = path.display();
        if self.json {
            let (state, what) = match found {
                Ok(Verified::Whole(what)) => ("whole", what.clone()),
                Ok(Verified::Opens(what)) => ("unknown", what.clone()),
                Err(error @ Error::Io { .. }) => ("unread", error.to_string()),
                Err(error) => ("damaged", error.to_string()),
            };
            return serde_json::json!({ "file": path.to_string(), "state": state, "what": what }).to_string();
        }
        match found {
            Ok(Verified::Whole(what)) => format!("whole    {path}  ({what})"),
            Ok(Verified::Opens(what)) => format!("unknown  {path}  ({what}: it opens, more cannot be told)"),
            Err(error @ Error::Io { .. }) => format!("UNREAD   {error}"),
            Err(error) => format!("DAMAGED  {error}"),
        }
    }
}
