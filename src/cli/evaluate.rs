//! `ddl evaluate`.

use super::agree_on_job;
use super::train::overrides;
use crate::comm::{Comm, agree};
use crate::config::{DataConfig, Job};
use crate::data::{Dataset, Input, Part, Task, open_inputs};
use crate::error::{Error, Result};
use crate::store::{Checkpoint, ClassFigures};
use crate::train::evaluate::{Metrics, last_value};
use crate::train::terminal::{say, table, thousands};
use crate::train::{LocalData, Predictor, forecast_table, input_of, read_on_root, share};
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Measure a checkpoint on the test part: every sample once, at any number of ranks
#[derive(Args)]
#[command(after_help = "Examples:
  ddl evaluate results/mnist-cnn/checkpoints/step-00001876.h5
  mpirun -n 4 ddl evaluate results/sp500-lstm/checkpoints/step-00036465.h5 --set data.path=other.csv")]
pub(super) struct Evaluate {
    /// The checkpoint
    checkpoint: PathBuf,
    /// Measure on all samples of this file, in the format of the job's source, instead of the job's test part
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Set a key of the checkpoint's job, such as data.path=... (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

impl Evaluate {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        let (job, checkpoint) = job_of(comm, &self.checkpoint, &self.set)?;
        let input = input_of(&job, checkpoint.as_ref(), &self.checkpoint, comm)?;
        // What is staged is kept from the cache's limit until this goes.
        let (mut data, _local) = match &self.input {
            Some(file) => {
                let local = LocalData::stage_inputs(&job.data, file, comm)?;
                let file = local.config.path.as_deref().unwrap_or(file);
                (agree(comm, open_labelled(&input, &job.data, file))?, local)
            }
            None => {
                let local = LocalData::stage(&job.data, comm)?;
                (agree(comm, Dataset::open_unread(&local.config, job.seed))?, local)
            }
        };
        if data.len(Part::Test) == 0 {
            let what = "the data has no test samples";
            let place = job.data.path.as_ref().map_or(job.file.clone(), |path| path.display().to_string());
            return Err(Error::data(place, what, "give a data set with a test part by --set data.path=..."));
        }
        let mut network = Predictor::load(&job, &input, checkpoint, &self.checkpoint, comm)?;
        let host = agree(comm, comm.host(Some(data.bytes())))?;
        share(&*host, comm, &mut data)?;
        let metrics = network.evaluate(&data, Part::Test)?;
        if comm.rank() == 0 {
            say(&if self.json { json(&metrics, &data) } else { text(&metrics, &data) });
        }
        Ok(())
    }
}

/// A file of inputs whose targets are known.
fn open_labelled(input: &Input, config: &DataConfig, file: &Path) -> Result<Dataset> {
    let data = open_inputs(input, config, file)?;
    match data.is_labelled() {
        true => Ok(data),
        false => Err(Error::data(
            file.display().to_string(),
            "it does not hold every sample's target",
            "give a file that does",
        )),
    }
}

/// The checkpoint (on rank 0) and its job, with overrides.
pub(super) fn job_of(comm: &dyn Comm, path: &Path, set: &[String]) -> Result<(Job, Option<Checkpoint>)> {
    let checkpoint = read_on_root(comm, path)?;
    let mut config = checkpoint.as_ref().map(|checkpoint| checkpoint.config.clone().into_bytes()).unwrap_or_default();
    comm.broadcast(0, &mut config);
    let text = String::from_utf8_lossy(&config);
    let job = overrides(set).and_then(|overrides| Job::parse(&text, &path.display().to_string(), &overrides));
    Ok((agree_on_job(comm, job)?, checkpoint))
}

fn text(metrics: &Metrics, data: &Dataset) -> String {
    let mut out = format!("{} test samples, loss {:.6}\n\n", thousands(metrics.samples as u64), metrics.loss);
    match data.task() {
        Task::Classes(names) => {
            let accuracy = metrics.accuracy().unwrap_or(0.0);
            out += &format!("accuracy {:.2} %\n\n{}\n\n", 100.0 * accuracy, per_class(metrics, names));
            if names.len() <= 32 {
                out += &format!("confusion (rows: true, columns: given)\n{}", confusion(metrics, names));
            }
        }
        Task::Values(_) => {
            if let Some(errors) = &metrics.errors {
                out += &forecast_table(errors, last_value(data, Part::Test).as_ref());
            }
            if !metrics.targets.is_empty() {
                out += &format!("\n\n{}", per_target(metrics));
            }
        }
    }
    out
}

/// The errors of each target.
fn per_target(metrics: &Metrics) -> String {
    let mut rows = table(&["target", "MSE", "MAE", "RMSE", "MAPE %", "R²"], 1);
    for (target, errors) in metrics.targets.iter().enumerate() {
        let figures = errors.columns(Part::Test).map(|(_, figure)| format!("{figure:.4}"));
        rows.add_row(std::iter::once(target.to_string()).chain(figures));
    }
    rows.to_string()
}

/// Precision, recall and F1 of each class.
fn per_class(metrics: &Metrics, names: &[String]) -> String {
    let mut rows = table(&["class", "samples", "precision %", "recall %", "F1 %"], 1);
    for (name, of) in names.iter().zip(ClassFigures::of(&metrics.confusion)) {
        rows.add_row([name.clone(), of.samples.to_string()].into_iter().chain(of.texts()));
    }
    rows.to_string()
}

fn confusion(metrics: &Metrics, names: &[String]) -> String {
    let header: Vec<&str> = std::iter::once("").chain(names.iter().map(String::as_str)).collect();
    let mut rows = table(&header, 1);
    for (name, counts) in names.iter().zip(metrics.confusion.chunks(names.len())) {
        rows.add_row(std::iter::once(name.clone()).chain(counts.iter().map(u64::to_string)));
    }
    rows.to_string()
}

fn json(metrics: &Metrics, data: &Dataset) -> String {
    let columns = metrics.columns(Part::Test).into_iter().map(|(name, figure)| (name, figure.into()));
    let mut object = serde_json::Map::from_iter(columns);
    object.insert("samples".into(), metrics.samples.into());
    if let Task::Classes(names) = data.task() {
        let rows: Vec<&[u64]> = metrics.confusion.chunks(names.len()).collect();
        object.insert("classes".into(), serde_json::json!(names));
        object.insert("confusion".into(), serde_json::json!(rows));
    }
    if !metrics.targets.is_empty() {
        let targets: Vec<_> = metrics.targets.iter().map(|errors| BTreeMap::from(errors.columns(Part::Test))).collect();
        object.insert("targets".into(), serde_json::json!(targets));
    }
    if let Some(naive) = last_value(data, Part::Test) {
        object.insert("last_value".into(), serde_json::json!(BTreeMap::from(naive.columns(Part::Test))));
    }
    serde_json::Value::Object(object).to_string()
}
