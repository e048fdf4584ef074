//! Reading a run file back.

use super::answers::{self, Answers};
use super::seal::{self, Kind};
use super::{hdf, run::FORMAT_VERSION};
use crate::error::{Error, Result};
use hdf5::types::VarLenUnicode;
use hdf5::{Dataset, File};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Named columns, `epoch` or `step` first, then by name.
pub type Columns = Vec<(String, Vec<f64>)>;

/// Named figures.
pub type Figures = Vec<(String, f64)>;

/// All that a run file holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Root attributes as text: `name`, `status`, `started`, `finished`, `ranks`, ...
    pub attributes: Vec<(String, String)>,
    /// The resolved job as TOML.
    pub config: String,
    /// Host names, CPU, versions, binding, Slurm variables.
    pub environment: Vec<(String, String)>,
    /// `/metrics/epoch`; absent values are NaN.
    pub epochs: Columns,
    /// `/metrics/step`.
    pub steps: Columns,
    /// `/timing`: by phase, then epoch, then rank; seconds, NaN for ranks that were not there.
    pub timing: Vec<(String, Vec<Vec<f64>>)>,
    /// `/baseline`: by name.
    pub baselines: Vec<(String, Figures)>,
    /// `/result`.
    pub result: Figures,
    /// `/evaluation`; void once a run goes on, so that no journal needs it.
    #[serde(skip)]
    pub answers: Answers,
}

impl RunSummary {
    /// A root attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A column of `/metrics/epoch`.
    pub fn epoch_column(&self, name: &str) -> Option<&[f64]> {
        self.epochs.iter().find(|(n, _)| n == name).map(|(_, values)| values.as_slice())
    }

    /// A column of `/metrics/step`.
    pub fn step_column(&self, name: &str) -> Option<&[f64]> {
        self.steps.iter().find(|(n, _)| n == name).map(|(_, values)| values.as_slice())
    }

    /// The last step that has a row.
    pub(super) fn last_step(&self) -> u64 {
        self.step_column("step").and_then(<[f64]>::last).map_or(0, |&step| step as u64)
    }

    /// Rows of epochs and steps.
    pub(super) fn rows(&self) -> u64 {
        let longest = |columns: &Columns| columns.iter().map(|(_, values)| values.len()).max().unwrap_or(0) as u64;
        longest(&self.epochs) + longest(&self.steps)
    }

    /// Drops rows past so many epochs and steps.
    pub(super) fn cut(&mut self, epochs: u64, steps: u64) {
        let epochs = cut(&mut self.epochs, "epoch", epochs);
        cut(&mut self.steps, "step", steps);
        // One row for each row of /metrics/epoch.
        self.timing.iter_mut().for_each(|(_, rows)| rows.resize(epochs, Vec::new()));
    }
}

/// Cuts columns to the leading rows whose `key` is at most `last`; returns their number.
fn cut(columns: &mut Columns, key: &str, last: u64) -> usize {
    let keys = columns.iter().find(|(name, _)| name == key).map_or(&[][..], |(_, values)| values);
    let kept = keys.iter().take_while(|&&k| k <= last as f64).count();
    columns.iter_mut().for_each(|(_, values)| values.resize(kept, f64::NAN));
    kept
}

/// Reads a run file, finished or still being written.
///
/// # Errors
/// `Io` if it cannot be read, `Data` if it is damaged or not a run file of this format.
pub fn read_run(path: &Path) -> Result<RunSummary> {
    seal::verify(path, Kind::Run)?;
    let file = hdf::open(path)?;
    let unreadable = |e: hdf5::Error| hdf::damaged(path, &format!("cannot read the run: {}", hdf::cause(&e)));
    let version: u64 = hdf::get(&file, "format_version").map_err(unreadable)?;
    if version != FORMAT_VERSION {
        let what = format!("run format {version}, but this ddl reads format {FORMAT_VERSION}");
        return Err(Error::data(path.display().to_string(), what, "use the ddl that wrote it"));
    }
    read(&file).map_err(unreadable)
}

fn read(file: &File) -> hdf5::Result<RunSummary> {
    let mut timing = Vec::new();
    for (name, dataset) in members(file, "timing")? {
        let [epochs, ranks] = dataset.get_shape()?[..] else {
            return Err(format!("/timing/{name} is not (epoch, rank)").into());
        };
        let values = hdf::read::<f64>(file, &dataset)?;
        // Rows without a value take no room in the file, but some here.
        if ranks == 0 && epochs as u64 > file.size() {
            return Err(format!("/timing/{name}: {epochs} epochs of no rank").into());
        }
        let row = |epoch: usize| values[epoch * ranks..(epoch + 1) * ranks].to_vec();
        timing.push((name, (0..epochs).map(row).collect()));
    }
    let baseline = file.group("baseline")?;
    let mut baselines = Vec::new();
    for name in baseline.member_names()? {
        let figures = hdf::numbers(&*baseline.group(&name)?)?;
        baselines.push((name, figures));
    }
    Ok(RunSummary {
        attributes: hdf::attributes(file)?,
        config: hdf::utf8(&file.dataset("config")?.read_scalar::<VarLenUnicode>()?),
        environment: hdf::attributes(&*file.group("environment")?)?,
        epochs: columns(file, "metrics/epoch", "epoch")?,
        steps: columns(file, "metrics/step", "step")?,
        timing,
        baselines,
        result: hdf::numbers(&*file.group("result")?)?,
        answers: answers::read(file)?,
    })
}

fn columns(file: &File, path: &str, first: &str) -> hdf5::Result<Columns> {
    let mut columns = Columns::new();
    for (name, dataset) in members(file, path)? {
        columns.push((name, hdf::read::<f64>(file, &dataset)?));
    }
    columns.sort_by(|(a, _), (b, _)| (a != first, a).cmp(&(b != first, b)));
    Ok(columns)
}

fn members(file: &File, path: &str) -> hdf5::Result<Vec<(String, Dataset)>> {
    let group = file.group(path)?;
    group.member_names()?.into_iter().map(|name| group.dataset(&name).map(|dataset| (name, dataset))).collect()
}
