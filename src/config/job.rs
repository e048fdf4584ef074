//! The whole job: from TOML text and overrides to a checked [`Job`], and back to TOML with every default written out.

use super::address::redacted;
use super::component::suggestion;
use super::lines::Lines;
use super::overrides::Override;
use super::{Component, DataConfig, Distributed};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

pub(super) const SECTIONS: [&str; 7] = ["data", "model", "loss", "optimizer", "schedule", "train", "distributed"];
const TOP_LEVEL: [&str; 9] = ["name", "seed", "data", "model", "loss", "optimizer", "schedule", "train", "distributed"];

/// A larger file is no job.
const MOST_BYTES: u64 = 1 << 20;
/// More layers in one list are a mistake.
const MOST_LAYERS: usize = 1000;
/// Folders' names may not be longer than 255 bytes.
const MOST_NAME: usize = 200;

/// A job, its tables parsed and its own keys checked; the registries check their components.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Names the results folder.
    pub name: String,
    /// Keys every random number.
    pub seed: u64,
    /// What to train on.
    pub data: DataConfig,
    /// The layers in order.
    pub layers: Vec<Component>,
    /// The loss.
    pub loss: Component,
    /// The optimizer.
    pub optimizer: Component,
    /// The learning-rate schedule.
    pub schedule: Component,
    /// How long and in what batches.
    pub train: Train,
    /// How ranks work together.
    pub distributed: Distributed,
    /// The file's name, for messages.
    pub file: String,
}

/// The global batch, or each rank's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// Samples a step over all ranks.
    Global(usize),
    /// Samples a step on each rank: weak scaling.
    PerRank(usize),
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Passes over the training part.
    pub epochs: u64,
    /// Samples a step over all ranks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Instead of `batch_size`: samples a step on each rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_per_rank: Option<usize>,
    /// Samples of one forward and backward pass; by default chosen by the network, see `train::MicroBatch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// The share of the training part that is kept back to validate on, drawn by the seed; of series the last rows. 0: none.
    #[serde(default)]
    pub validation: f64,
    /// The run ends after so many epochs without a lower validation loss. 0: never.
    #[serde(default)]
    pub patience: u64,
    /// Largest L2 norm of the gradient; larger ones are scaled down to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// What the products of linear and recurrent layers multiply in.
    #[serde(default)]
    pub precision: super::Precision,
    /// Epochs between evaluations on the test part; the last epoch is always evaluated. 0: the last only.
    #[serde(default = "one")]
    pub evaluate_every: u64,
    /// Epochs between checkpoints; the last epoch always makes one. 0: the last only.
    #[serde(default = "one")]
    pub checkpoint_every: u64,
    /// Steps between checkpoints inside an epoch. 0: none.
    #[serde(default)]
    pub checkpoint_steps: u64,
    /// The run ends after this many steps at the latest, evaluated and saved like a whole one; the schedule stays that of
    /// all epochs. 0: no limit.
    #[serde(default)]
    pub max_steps: u64,
    /// How many checkpoints to keep; the oldest go.
    #[serde(default = "three")]
    pub keep_checkpoints: usize,
}

fn one() -> u64 {
    1
}

fn three() -> usize {
    3
}

impl Train {
    /// The keys of `[train]`, and what they are, for the documentation.
    pub const KEYS: [(&str, &str); 13] = [
        ("epochs", "passes over the training part"),
        ("batch_size", "samples a step over all ranks"),
        ("batch_per_rank", "instead of it: samples a step on each rank"),
        (
            "micro_batch",
            "samples of one forward and backward pass (chosen by the network: `ddl train --dry-run` tells)",
        ),
        (
            "precision",
            "what linear, lstm and gru layers multiply in: \"f32\", or \"bf16\" with sums and weights in f32 (\"f32\")",
        ),
        (
            "validation",
            "share of the training part kept back to validate on, drawn by the seed, of series the last rows; the epoch with the \
             lowest loss on it is kept as checkpoints/best.h5 (0)",
        ),
        ("patience", "ends the run after so many epochs without a lower validation loss; 0: never (0)"),
        ("clip_norm", "largest L2 norm of the gradient; larger ones are scaled down to it (none)"),
        ("evaluate_every", "epochs between evaluations on the test part; 0: after the last only (1)"),
        ("checkpoint_every", "epochs between checkpoints; 0: after the last only (1)"),
        ("max_steps", "ends the run after so many steps, with a checkpoint; 0: none (0)"),
        ("checkpoint_steps", "steps between checkpoints inside an epoch; 0: none (0)"),
        ("keep_checkpoints", "how many checkpoints to keep; the oldest go (3)"),
    ];

    /// The global batch or each rank's.
    pub fn batch(&self) -> Batch {
        match (self.batch_size, self.batch_per_rank) {
            (_, Some(samples)) => Batch::PerRank(samples),
            (samples, None) => Batch::Global(samples.unwrap_or(1)),
        }
    }

    /// Samples a step over `ranks` ranks.
    pub fn global_batch(&self, ranks: usize) -> usize {
        match self.batch() {
            Batch::Global(samples) => samples,
            Batch::PerRank(samples) => samples * ranks,
        }
    }

    /// Samples of one forward and backward pass, as given or as chosen by `train::settled`; before that the whole batch. Does
    /// not depend on the number of ranks, so that the result does not.
    pub fn micro_batch(&self) -> usize {
        let batch = match self.batch() {
            Batch::Global(samples) | Batch::PerRank(samples) => samples,
        };
        self.micro_batch.map_or(batch, |micro| micro.min(batch))
    }
}

impl Job {
    /// Reads a job file and applies the overrides, the later ones last.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Job> {
        Job::parse(&Self::read(path)?, &path.display().to_string(), overrides)
    }

    /// Only what a job file says of its data, and the seed: nothing else needs to be there, or right.
    pub fn load_data(path: &Path, overrides: &[Override]) -> Result<(DataConfig, u64)> {
        Job::parse_data(&Self::read(path)?, &path.display().to_string(), overrides)
    }

    /// The text of a job file.
    fn read(path: &Path) -> Result<String> {
        let refuse =
            |what: &str| Err(Error::usage(path.display().to_string(), what, "give a job file; examples are in jobs/"));
        let failed = |e: std::io::Error| Error::io(path, format!("cannot be read: {e}"), "check the path and the disk");
        let kind = match std::fs::metadata(path) {
            Ok(kind) => kind,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return refuse("there is no such job file"),
            Err(e) => return Err(failed(e)),
        };
        if !kind.is_file() {
            return refuse("is not a regular file");
        }
        if kind.len() > MOST_BYTES {
            return refuse("is larger than 1 MiB");
        }
        match std::fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(e)) => refuse(&format!("byte {} is not UTF-8 text", e.utf8_error().valid_up_to())),
            Err(e) => Err(failed(e)),
        }
    }

    /// Parses the text of the job file `file`.
    pub fn parse(text: &str, file: &str, overrides: &[Override]) -> Result<Job> {
        Sections::parse(text, file, overrides)?.job()
    }

    /// [`Job::load_data`] of the text of `file`.
    pub fn parse_data(text: &str, file: &str, overrides: &[Override]) -> Result<(DataConfig, u64)> {
        let mut sections = Sections::parse(text, file, overrides)?;
        let seed = sections.seed()?;
        Ok((sections.data()?, seed))
    }

    /// The job as TOML, with every default written out.
    ///
    /// # Errors
    /// Whatever the registries find wrong with their components.
    pub fn resolved(&self) -> Result<String> {
        let mut job = Table::new();
        job.insert("name".into(), self.name.clone().into());
        job.insert("seed".into(), Value::Integer(self.seed as i64));
        let mut data = crate::data::Dataset::resolve(&self.data)?;
        for (_, value) in data.iter_mut() {
            if let Value::String(text) = value {
                *text = redacted(text);
            }
        }
        job.insert("data".into(), data.into());
        let layers: Result<Vec<Value>> = self
            .layers
            .iter()
            .map(|layer| Ok((crate::layer::find(layer)?.resolve)(layer)?.to_table("type").into()))
            .collect();
        job.insert("model".into(), Table::from_iter([("layers".to_owned(), Value::Array(layers?))]).into());
        let loss = (crate::loss::find(&self.loss)?.resolve)(&self.loss)?;
        let optimizer = (crate::optimizer::find(&self.optimizer)?.resolve)(&self.optimizer)?;
        let schedule = crate::optimizer::schedule::resolve(&self.schedule)?;
        for (name, component) in [("loss", loss), ("optimizer", optimizer), ("schedule", schedule)] {
            job.insert(name.into(), component.to_table("type").into());
        }
        let internal = |e: toml::ser::Error| Error::internal("the resolved job", e);
        job.insert("train".into(), Table::try_from(&self.train).map_err(internal)?.into());
        job.insert("distributed".into(), Table::try_from(&self.distributed).map_err(internal)?.into());
        toml::to_string(&job).map_err(internal)
    }
}

/// A job's tables on their way to a [`Job`].
struct Sections<'a> {
    table: Table,
    lines: Lines,
    file: &'a str,
}

impl<'a> Sections<'a> {
    fn parse(text: &str, file: &'a str, overrides: &[Override]) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = Lines::of(text, file)?;
        let mut table = text.parse::<Table>().map_err(|e| Error::usage(file, e.message(), "correct the TOML"))?;
        for change in overrides {
            change.apply(&mut table)?;
            lines.set(&change.path, change.origin());
        }
        Ok(Self { table, lines, file })
    }

    fn seed(&mut self) -> Result<u64> {
        match self.table.remove("seed") {
            None => Ok(42),
            Some(Value::Integer(seed)) if seed >= 0 => Ok(seed as u64),
            Some(_) => Err(self.error("seed", "is not a whole number of at least 0", "give one, such as 42")),
        }
    }

    fn data(&mut self) -> Result<DataConfig> {
        DataConfig::from_component(self.tagged("data", "source", None)?)
    }

    fn job(mut self) -> Result<Job> {
        for key in self.table.keys() {
            if !TOP_LEVEL.contains(&key.as_str()) {
                let mend = suggestion(key, &TOP_LEVEL.map(str::to_owned));
                return Err(Error::usage(self.lines.place(key), format!("unknown key `{key}`"), mend));
            }
        }
        let name = self.name()?;
        let seed = self.seed()?;
        let mut data = self.data()?;
        let layers = self.layers()?;
        let loss = self.tagged("loss", "type", None)?;
        let optimizer = self.tagged("optimizer", "type", None)?;
        let schedule = self.tagged("schedule", "type", Some("constant"))?;
        let section = self.section("train")?;
        let train: Train = section.parse()?;
        check_train(&section, &train)?;
        data.validation = train.validation;
        let section = self.section("distributed")?;
        let distributed: Distributed = section.parse()?;
        distributed.check(&section)?;
        Ok(Job { name, seed, data, layers, loss, optimizer, schedule, train, distributed, file: self.file.into() })
    }

    fn error(&self, path: &str, what: &str, mend: &str) -> Error {
        Error::usage(self.lines.place(path), what, mend)
    }

    /// The name becomes a folder, so it may hold no separator.
    fn name(&mut self) -> Result<String> {
        let default = PathBuf::from(self.file).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = match self.table.remove("name") {
            Some(Value::String(name)) => name,
            Some(_) => return Err(self.error("name", "is not a text", "write name = \"my-run\"")),
            None => default.unwrap_or_else(|| "run".into()),
        };
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(self.error("name", "is no name for a folder", "use letters, digits, - and _"));
        }
        if name.len() > MOST_NAME {
            return Err(self.error("name", "is longer than 200 bytes", "use a shorter one"));
        }
        Ok(name)
    }

    fn section(&mut self, name: &str) -> Result<Component> {
        debug_assert!(SECTIONS.contains(&name));
        match self.table.remove(name) {
            Some(Value::Table(table)) => Ok(self.lines.component(name, name, table)),
            None => Ok(self.lines.component(name, name, Table::new())),
            Some(_) => Err(self.error(name, "is not a table", &format!("write [{name}] and its keys below"))),
        }
    }

    /// A section whose `tag` says its kind.
    fn tagged(&mut self, name: &str, tag: &str, default: Option<&str>) -> Result<Component> {
        let mut section = self.section(name)?;
        section.kind = self.kind(&mut section, tag, default)?;
        Ok(section)
    }

    fn kind(&self, component: &mut Component, tag: &str, default: Option<&str>) -> Result<String> {
        match component.table.remove(tag) {
            Some(Value::String(kind)) => Ok(kind),
            Some(_) => Err(component.error(tag, "is not a text", format!("write {tag} = \"...\""))),
            None => match default {
                Some(default) => Ok(default.into()),
                None => Err(component.error("", format!("has no `{tag}`"), format!("add {tag} = \"...\""))),
            },
        }
    }

    fn layers(&mut self) -> Result<Vec<Component>> {
        let mend = "write layers = [{ type = \"linear\", out_features = 10 }]";
        let mut model = self.section("model")?;
        let list = model.table.remove("layers");
        if let Some(key) = model.table.keys().next() {
            return Err(model.error(key, format!("unknown key `{key}`"), suggestion(key, &["layers".into()])));
        }
        let Some(Value::Array(list)) = list else {
            return Err(self.error("model.layers", "is not a list of layers", mend));
        };
        if list.is_empty() {
            return Err(self.error("model.layers", "is empty", mend));
        }
        if list.len() > MOST_LAYERS {
            let what = format!("has {} layers, more than {MOST_LAYERS}", list.len());
            return Err(self.error("model.layers", &what, "use fewer"));
        }
        let mut layers = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            let path = format!("model.layers[{index}]");
            let Value::Table(table) = value else {
                return Err(self.error(&path, "is not a table", mend));
            };
            let mut layer = self.lines.component(&path, "", table);
            layer.kind = self.kind(&mut layer, "type", None)?;
            layers.push(layer);
        }
        Ok(layers)
    }
}

fn check_train(section: &Component, train: &Train) -> Result<()> {
    match (train.batch_size, train.batch_per_rank) {
        (Some(_), Some(_)) => {
            let what = "is given beside batch_size";
            return Err(section.error("batch_per_rank", what, "keep one: batch_size is over all ranks"));
        }
        (None, None) => {
            return Err(section.error("batch_size", "is missing", "add the global batch, such as batch_size = 128"));
        }
        _ => {}
    }
    let positive = [
        ("epochs", Some(train.epochs as usize)),
        ("batch_size", train.batch_size),
        ("batch_per_rank", train.batch_per_rank),
        ("micro_batch", train.micro_batch),
        ("keep_checkpoints", Some(train.keep_checkpoints)),
    ];
    for (key, value) in positive {
        if value == Some(0) {
            return Err(section.error(key, "is 0", "give at least 1"));
        }
    }
    if !(0.0..1.0).contains(&train.validation) {
        return Err(section.error("validation", "is no share below 1", "give 0 to below 1, such as 0.1"));
    }
    if train.patience > 0 && train.validation == 0.0 {
        let what = "waits for the validation loss, but nothing is kept back to validate on";
        return Err(section.error("patience", what, "set train.validation, such as 0.1, or remove it"));
    }
    // So that steps can be counted.
    if train.epochs > 1 << 30 {
        return Err(section.error("epochs", "is more than 1,073,741,824", "use fewer epochs"));
    }
    for (key, value) in [("batch_size", train.batch_size), ("batch_per_rank", train.batch_per_rank)] {
        if value.is_some_and(|value| value > 1 << 24) {
            return Err(section.error(key, "is more than 16,777,216", "use a smaller batch"));
        }
    }
    if train.clip_norm.is_some_and(|norm| norm.is_nan() || norm <= 0.0) {
        return Err(section.error("clip_norm", "is not positive", "give the largest norm, such as 1.0, or remove it"));
    }
    Ok(())
}
