//! Where two runs or checkpoints differ: settings, then metrics, then the first checkpoint, tensor and element.
//!
//! All by bits: a difference in the last digit is one, and so is that of a NaN from another.

mod tensor;
mod text;

pub use tensor::TensorDifference;

use crate::config::{Change, changes};
use crate::error::{Error, Result};
use crate::store::{self, Checkpoint, RunSummary, Tensor};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Columns that tell of time, which no two runs share.
const TIMES: &[&str] = &["seconds", "samples_per_second"];

/// One of the two.
pub struct Side {
    /// As it was given.
    path: PathBuf,
    config: String,
    run: Option<RunSummary>,
    /// Steps and files, the oldest first.
    checkpoints: Vec<(u64, PathBuf)>,
}

impl Side {
    /// Opens a run's folder, its run file or a checkpoint.
    ///
    /// # Errors
    /// `Io` if it cannot be read, `Data` if it is damaged, `Usage` if it is none of these.
    pub fn open(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join("run.h5") } else { path.to_path_buf() };
        if path.is_dir() && !file.exists() {
            let mend = "give the folder of a run, its run.h5 or a checkpoint";
            return Err(Error::usage(path.display().to_string(), "there is no run.h5 in this folder", mend));
        }
        if store::is_checkpoint(&file)? {
            let Checkpoint { config, step, .. } = store::checkpoint::read(&file)?;
            return Ok(Self { path: path.into(), config, run: None, checkpoints: vec![(step, file)] });
        }
        let run = store::read_run(&file)?;
        let folder = file.parent().unwrap_or(Path::new(".")).join("checkpoints");
        let files = store::checkpoint::list(&folder)?.into_iter();
        let checkpoints = files.filter_map(|file| Some((store::checkpoint::step_of(&file)?, file))).collect();
        Ok(Self { path: path.into(), config: run.config.clone(), run: Some(run), checkpoints })
    }
}

/// A value of a metric that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricDifference {
    /// `epoch` or `step`.
    pub table: &'static str,
    /// The first such row: its epoch or step.
    pub row: f64,
    /// The first column that differs there.
    pub column: String,
    /// In the first run; absent where it has no such row.
    pub a: Option<f64>,
    /// In the second.
    pub b: Option<f64>,
}

/// Weights that differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightDifference {
    /// Of the first checkpoints that differ: those of the same step, or the two that were given.
    pub steps: (u64, u64),
    /// The step of the last checkpoints before them that are alike.
    pub alike: Option<u64>,
    /// The tensors that differ, in the order of layers, weights before moments.
    pub tensors: Vec<TensorDifference>,
    /// Tensors that only one has, or that have other shapes.
    pub unmatched: Vec<String>,
}

/// What was compared, and where it differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The first.
    pub a: String,
    /// The second.
    pub b: String,
    /// Keys of the jobs that differ: key, value in the first, value in the second.
    pub settings: Vec<(String, Option<String>, Option<String>)>,
    /// The first differences of epochs and of steps.
    pub metrics: Vec<MetricDifference>,
    /// Rows of metrics that were compared.
    pub rows: usize,
    /// Where weights and moments differ.
    pub weights: Option<WeightDifference>,
    /// Steps whose checkpoints were compared.
    pub compared: Vec<u64>,
}

impl Comparison {
    /// Whether all that was compared is the same bits. Settings may differ: another number of ranks changes nothing.
    pub fn is_same(&self) -> bool {
        self.metrics.is_empty() && self.weights.is_none()
    }
}

/// Compares two sides.
///
/// # Errors
/// As of [`Side::open`], for checkpoints that are read on the way; `Usage` where the two share nothing to compare.
pub fn compare(a: &Side, b: &Side) -> Result<Comparison> {
    let settings = changes(&a.config, &b.config).into_iter().map(|Change { key, old, new }| (key, old, new)).collect();
    let (mut metrics, mut rows) = (Vec::new(), 0);
    if let (Some(a), Some(b)) = (&a.run, &b.run) {
        for (table, a, b) in [("epoch", &a.epochs, &b.epochs), ("step", &a.steps, &b.steps)] {
            rows += a.first().map_or(0, |(_, values)| values.len());
            metrics.extend(first_difference(table, a, b));
        }
    }
    let (compared, weights) = weights(a, b)?;
    if compared.is_empty() && rows == 0 {
        let place = format!("{} and {}", a.path.display(), b.path.display());
        let what = "they have neither metrics nor checkpoints of one step to compare";
        return Err(Error::usage(place, what, "give two runs, or two checkpoints"));
    }
    let [a, b] = [a, b].map(|side| side.path.display().to_string());
    Ok(Comparison { a, b, settings, metrics, rows, weights, compared })
}

/// The first row of a table in which a column differs.
fn first_difference(
    table: &'static str,
    a: &[(String, Vec<f64>)],
    b: &[(String, Vec<f64>)],
) -> Option<MetricDifference> {
    let column = |columns: &[(String, Vec<f64>)], name: &str| {
        columns.iter().find(|(n, _)| n == name).map_or(Vec::new(), |(_, values)| values.clone())
    };
    let keys = (column(a, table), column(b, table));
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in a.iter().chain(b) {
        if !TIMES.contains(&name.as_str()) && !names.contains(&name) {
            names.push(name);
        }
    }
    // A loss says more than what is made of it.
    names.sort_by_key(|name| !name.ends_with("loss"));
    let columns: Vec<_> = names.iter().map(|name| (*name, column(a, name), column(b, name))).collect();
    (0..keys.0.len().max(keys.1.len())).find_map(|row| {
        let row_key = keys.0.get(row).or(keys.1.get(row)).copied().unwrap_or(f64::NAN);
        columns.iter().find_map(|(name, a, b)| {
            let (a, b) = (a.get(row).copied(), b.get(row).copied());
            let differs = a.map(f64::to_bits) != b.map(f64::to_bits);
            differs.then(|| MetricDifference { table, row: row_key, column: name.to_string(), a, b })
        })
    })
}

/// The steps whose checkpoints were read, and the first difference. Once weights differ they will go on to, so that the
/// first step is found by halving.
fn weights(a: &Side, b: &Side) -> Result<(Vec<u64>, Option<WeightDifference>)> {
    let pairs = pairs(a, b);
    let (mut compared, mut first) = (Vec::new(), None);
    let (mut low, mut high) = (0, pairs.len());
    while low < high {
        // The last one first: where it is alike, all are.
        let middle = if high == pairs.len() && first.is_none() { high - 1 } else { low + (high - low) / 2 };
        let (step, [path_a, path_b]) = &pairs[middle];
        let (one, other) = (store::checkpoint::read(path_a)?, store::checkpoint::read(path_b)?);
        compared.push(*step);
        match differences(&one, &other) {
            Some(difference) => (first, high) = (Some(difference), middle),
            None => low = middle + 1,
        }
    }
    compared.sort_unstable();
    if let Some(first) = &mut first {
        first.alike = low.checked_sub(1).and_then(|last| pairs.get(last)).map(|(step, _)| *step);
    }
    Ok((compared, first))
}

/// Checkpoints to compare, by step: two that were given, or those of steps that both have.
fn pairs(a: &Side, b: &Side) -> Vec<(u64, [PathBuf; 2])> {
    if let (None, [(step, one)], None, [(_, other)]) = (&a.run, &a.checkpoints[..], &b.run, &b.checkpoints[..]) {
        return vec![(*step, [one.clone(), other.clone()])];
    }
    let other = |step: u64| b.checkpoints.iter().find(|(s, _)| *s == step).map(|(_, path)| path.clone());
    a.checkpoints.iter().filter_map(|(step, path)| Some((*step, [path.clone(), other(*step)?]))).collect()
}

/// Where two checkpoints differ.
fn differences(a: &Checkpoint, b: &Checkpoint) -> Option<WeightDifference> {
    let all = |checkpoint: &Checkpoint| -> Vec<(String, Tensor)> {
        let named = |place: &str, tensors: &[Tensor]| -> Vec<_> {
            tensors.iter().map(|tensor| (format!("{place}{}", tensor.key), tensor.clone())).collect()
        };
        let moments = checkpoint.optimizer.iter().flat_map(|(slot, tensors)| named(&format!("{slot} "), tensors));
        named("", &checkpoint.model).into_iter().chain(moments).collect()
    };
    let (tensors_a, tensors_b) = (all(a), all(b));
    let (mut tensors, mut unmatched) = (Vec::new(), Vec::new());
    for (name, tensor) in &tensors_a {
        match tensors_b.iter().find(|(n, _)| n == name) {
            Some((_, other)) if other.shape == tensor.shape => {
                tensors.extend(TensorDifference::between(name, tensor, other));
            }
            Some((_, other)) => unmatched.push(format!("{name}: shapes {:?} and {:?}", tensor.shape, other.shape)),
            None => unmatched.push(format!("{name}: only in the first")),
        }
    }
    let missing = tensors_b.iter().filter(|(name, _)| tensors_a.iter().all(|(n, _)| n != name));
    unmatched.extend(missing.map(|(name, _)| format!("{name}: only in the second")));
    let same = tensors.is_empty() && unmatched.is_empty();
    (!same).then_some(WeightDifference { steps: (a.step, b.step), alike: None, tensors, unmatched })
}
