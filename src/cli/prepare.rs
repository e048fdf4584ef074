//! `ddl prepare`.

use super::explore::{SourceArgs, open};
use crate::comm::{Comm, agree, on_root};
use crate::config::DataConfig;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::explore::{Survey, survey};
use crate::prepare::prepare;
use crate::store::prepared::{Attributes, Storage};
use crate::store::protect;
use crate::train::terminal::{bytes, say, tell};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use toml::{Table, Value};

/// Make one HDF5 file of any data set, to train from with source = "hdf5"
#[derive(Args)]
#[command(after_help = "Examples:
  ddl prepare jobs/mnist-cnn.toml --out mnist.h5
  mpirun -n 4 ddl prepare cifar10 --path data/cifar10 --out cifar10.h5 --compress
  ddl prepare csv --path wine.csv --set data.target=quality --out wine.h5 --contiguous")]
pub(super) struct Prepare {
    #[command(flatten)]
    source: SourceArgs,
    /// The file to write
    #[arg(long, value_name = "FILE.h5")]
    out: PathBuf,
    /// Pack by deflate, at this level from 1 (fast) to 9 (small)
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "4",
          value_parser = clap::value_parser!(u8).range(1..=9))]
    compress: Option<u8>,
    /// Each array in one piece instead of chunks
    #[arg(long, conflicts_with = "compress")]
    contiguous: bool,
}

/// The keys that say how data are used, whatever their source.
const SHARED: [&str; 3] = ["shuffle", "augment", "normalize"];

impl Prepare {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        let ending = self.out.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if !["h5", "hdf5"].contains(&ending.as_str()) {
            let what = format!("cannot write a .{ending} file");
            return Err(Error::usage(format!("--out {}", self.out.display()), what, "use the ending .h5"));
        }
        let (config, seed) = self.source.config(comm)?;
        let inputs = config.path.as_deref().into_iter().chain(self.source.job());
        agree(comm, protect("--out", &self.out, inputs))?;
        let mut data = open(comm, Dataset::open_raw(&config, seed))?;
        agree(comm, data.require_finite())?;
        let path = config.path.as_ref().map(|path| path.display().to_string());
        let survey = survey(&data, &config.source.kind, path, comm)?;
        if data.is_series() {
            let whole = DataConfig { validation: 0.0, ..config.clone() };
            data = open(comm, Dataset::open_unread(&whole, seed))?;
        }
        let resolved = agree(comm, Dataset::resolve(&config))?;
        let about = agree(comm, about(&data, &config, seed, &resolved, survey.as_ref()))?;
        let storage = match (self.compress, self.contiguous) {
            (Some(level), _) => Storage::Packed(level),
            (None, true) => Storage::Contiguous,
            (None, false) => Storage::Chunked,
        };
        prepare(&data, &self.out, storage, &about, comm)?;
        on_root(comm, || {
            data.notes().iter().for_each(|note| tell(note));
            let size = std::fs::metadata(&self.out).map_or(0, |file| file.len() as usize);
            say(&format!(
                "wrote {}, {}; to train from it:\n\n{}",
                self.out.display(),
                bytes(size),
                self.table(&data, resolved)
            ));
            Ok(())
        })
    }

    /// The `[data]` of a job that trains from the file as it would from the source.
    fn table(&self, data: &Dataset, mut resolved: Table) -> String {
        let mut table = Table::new();
        table.insert("source".into(), "hdf5".into());
        table.insert("path".into(), self.out.to_string_lossy().into_owned().into());
        for key in SHARED {
            table.extend(resolved.remove_entry(key));
        }
        if data.is_series() {
            table.insert("normalize".into(), "none".into());
        }
        let lines = table.iter().map(|(key, value)| format!("{key} = {value}"));
        std::iter::once("[data]".to_owned()).chain(lines).collect::<Vec<_>>().join("\n")
    }
}

/// As an attribute.
fn json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal("an attribute as JSON", e))
}

/// Where the data come from and what they mean.
fn about(
    data: &Dataset,
    config: &DataConfig,
    seed: u64,
    resolved: &Table,
    survey: Option<&Survey>,
) -> Result<Attributes> {
    let input = data.description();
    let origin = Table::from_iter([("data".to_owned(), Value::Table(resolved.clone()))]);
    let mut about = vec![
        ("format", "ddl data".to_owned()),
        ("format_version", "1".to_owned()),
        ("ddl_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("source", config.source.kind.clone()),
        ("origin", format!("seed = {seed}\n{origin}")),
        ("notes", data.notes().join("\n")),
        ("classes", json(&input.classes)?),
        ("features", json(&input.features)?),
        ("targets", json(&input.targets)?),
        ("series", json(&input.series)?),
    ];
    if let Some(survey) = survey {
        about.push(("survey", json(survey)?));
    }
    Ok(about)
}
