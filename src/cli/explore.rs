//! `ddl explore`.

use super::train::overrides;
use crate::comm::{Comm, accord, agree, on_root};
use crate::config::{DataConfig, Job, nearest};
use crate::data::{self, Dataset};
use crate::error::{Error, Result};
use crate::explore;
use crate::train::share;
use crate::train::terminal::{say, tell};
use clap::Args;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Look at a data set before training: classes, ranges, gaps, duplicates, pictures
#[derive(Args)]
#[command(after_help = "Examples:
  ddl explore jobs/mnist-cnn.toml --out results/mnist-look
  mpirun -n 4 ddl explore cifar10 --path data/cifar10
  ddl explore stocks --path data/sp500/index_daily.csv.gz --set 'data.column=\"adj close\"'
  ddl explore csv --path wine.csv --set data.target=quality --json")]
pub(super) struct Explore {
    #[command(flatten)]
    source: SourceArgs,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Write pictures (PNG and SVG) and a page that holds them, explore.html, into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Which data, for commands that need no network.
#[derive(Args)]
pub(super) struct SourceArgs {
    /// A job file, whose [data] is taken; or with --path the name of a source, such as mnist, cifar10, stocks, csv, npz or
    /// hdf5
    source: String,
    /// The folder or file, where SOURCE is the name of a source
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// Set a key, such as data.column=open or data.target=price (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl SourceArgs {
    /// The same data of every rank, and the seed.
    pub(super) fn config(&self, comm: &dyn Comm) -> Result<(DataConfig, u64)> {
        let known = self.load().and_then(|(config, seed)| {
            let text =
                toml::to_string(&Dataset::resolve(&config)?).map_err(|e| Error::internal("the data's keys", e))?;
            Ok((format!("seed = {seed}\n{text}"), config, seed))
        });
        let (text, config, seed) = agree(comm, known)?;
        accord(comm, &[("data", &text)])?;
        Ok((config, seed))
    }

    /// The job file, if it is one.
    pub(super) fn job(&self) -> Option<&Path> {
        let is_name = data::registry().iter().any(|source| source.name == self.source);
        (!is_name).then_some(Path::new(&self.source))
    }

    fn load(&self) -> Result<(DataConfig, u64)> {
        let overrides = overrides(&self.set)?;
        if let Some(job) = self.job() {
            if let Some(path) = &self.path {
                let known = data::registry().iter().map(|source| source.name).collect::<Vec<_>>().join(", ");
                let what = format!("\"{}\" is not the name of a source", self.source);
                return Err(Error::usage(format!("--path {}", path.display()), what, format!("give one of {known}")));
            }
            if !job.exists() && job.extension().is_none() {
                let names = || data::registry().iter().map(|source| source.name);
                let what = "neither a job file nor the name of a source";
                let mend = match nearest(&self.source, names()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => {
                        format!("give a job file, or one of {} with --path", names().collect::<Vec<_>>().join(", "))
                    }
                };
                return Err(Error::usage(&self.source, what, mend));
            }
            return Job::load_data(job, &overrides);
        }
        let mut table = Table::from_iter([("source".to_owned(), Value::from(self.source.as_str()))]);
        if let Some(path) = &self.path {
            table.insert("path".into(), path.to_string_lossy().into_owned().into());
        }
        let text = Table::from_iter([("data".to_owned(), Value::Table(table))]).to_string();
        Job::parse_data(&text, "command line", &overrides)
    }
}

/// Data that each rank has opened, with one copy of the samples a host. Collective.
pub(super) fn open(comm: &dyn Comm, data: Result<Dataset>) -> Result<Dataset> {
    let mut data = agree(comm, data)?;
    let host = agree(comm, comm.host(Some(data.bytes())))?;
    share(&*host, comm, &mut data)?;
    Ok(data)
}

impl Explore {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        let (config, seed) = self.source.config(comm)?;
        let data = open(comm, Dataset::open_raw(&config, seed))?;
        let path = config.path.as_ref().map(|path| path.display().to_string());
        let survey = explore::survey(&data, &config.source.kind, path, comm)?;
        on_root(comm, || {
            let Some(survey) = &survey else { return Ok(()) };
            let json = || serde_json::to_string(survey).map_err(|e| Error::internal("the survey as JSON", e));
            say(&if self.json { json()? } else { explore::text(survey) });
            Ok(())
        })?;
        let Some(folder) = &self.out else { return Ok(()) };
        explore::write(survey.as_ref(), &data, folder, comm)?;
        on_root(comm, || {
            if !self.json {
                tell(&format!("\nwrote pictures and {}", folder.join("explore.html").display()));
            }
            Ok(())
        })
    }
}
