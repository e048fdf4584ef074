//! The run file `run.h5`, written by one process and readable while the run goes on: after every flush it is whole,
//! and it takes no lock.

use super::{RunSummary, atomic, hdf, read_run};
use crate::error::{Error, Result};
use hdf5::types::VarLenUnicode;
use hdf5::{Dataset, File, Group, H5Type};
use ndarray::Array2;
use std::path::{Path, PathBuf};

pub(super) const FORMAT_VERSION: u64 = 1;

/// Rows a chunk of the epoch columns, of the step columns and of the timing takes.
const EPOCH_ROWS: usize = 128;
const STEP_ROWS: usize = 4096;
const TIMING_ROWS: usize = 16;

/// What is known when the run starts.
#[derive(Debug, Clone, Copy)]
pub struct RunInfo<'a> {
    /// The job's name.
    pub name: &'a str,
    /// The resolved job as TOML.
    pub config: &'a str,
    /// Ranks of the run.
    pub ranks: usize,
    /// The source's commit.
    pub commit: &'a str,
    /// Host names, CPU, versions, binding, Slurm variables.
    pub environment: &'a [(String, String)],
}

/// One row of `/metrics/step`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepRow {
    /// The optimizer step, counted from 1 over the whole run.
    pub step: u64,
    /// Mean training loss of the batch.
    pub loss: f64,
    /// The learning rate used.
    pub lr: f64,
    /// The gradient's L2 norm before clipping.
    pub grad_norm: f64,
}

/// An open run file. Dropped without [`finish`](Self::finish), its status stays `running`.
pub struct RunFile {
    path: PathBuf,
    file: File,
    /// Rows of /metrics/epoch, /metrics/step and /timing.
    epochs: usize,
    steps: usize,
    timings: usize,
    /// Columns of /timing: the most ranks the run ever had.
    width: usize,
}

impl RunFile {
    /// Starts a run file. An older one is replaced once the new one is whole enough to be opened.
    ///
    /// # Errors
    /// `Io` when the folder cannot be written to; an older file stays then.
    pub fn create(path: &Path, info: &RunInfo) -> Result<Self> {
        Self::start(path, info, |_| Ok(()))
    }

    /// Goes on with a run file after a checkpoint: rows past `epochs_done` and `steps_done` are dropped, since they
    /// will be computed again. The rest is copied to a new file, which then replaces the old one, so that a kill or a
    /// full disk costs nothing. A file that cannot be read is named in a warning, kept as `run.h5.damaged`, and a new
    /// one is started.
    ///
    /// # Errors
    /// `Io` when the file cannot be opened or its folder not written to.
    pub fn resume(path: &Path, info: &RunInfo, epochs_done: u64, steps_done: u64) -> Result<Self> {
        if !path.exists() {
            if steps_done > 0 {
                log::warn!("{}: the run file is missing; a new one starts after step {steps_done}", path.display());
            }
            return Self::create(path, info);
        }
        match read_run(path) {
            Ok(old) => Self::start(path, info, |run| run.take_over(&old, epochs_done, steps_done)),
            Err(error @ Error::Data { .. }) => {
                let aside = free_name(path);
                std::fs::rename(path, &aside)
                    .map_err(|e| Error::io(path, format!("cannot move the damaged file aside: {e}"), "remove it"))?;
                log::warn!("{error}: it is kept as {}, and a new run file is started", aside.display());
                Self::create(path, info)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the file under a temporary name, fills it, and gives it its name.
    fn start(path: &Path, info: &RunInfo, fill: impl FnOnce(&mut Self) -> hdf5::Result<()>) -> Result<Self> {
        let replacement = atomic::Replacement::new(path)?;
        let make = || -> hdf5::Result<Self> {
            let file = hdf::options().create(replacement.temporary())?;
            for group in ["environment", "metrics/epoch", "metrics/step", "timing", "baseline", "result"] {
                file.create_group(group)?;
            }
            describe_run(&file, info)?;
            let mut run = Self { path: path.to_path_buf(), file, epochs: 0, steps: 0, timings: 0, width: info.ranks };
            fill(&mut run)?;
            run.file.flush()?;
            Ok(run)
        };
        let run = make().map_err(|e| failed(path, "start the run file", &e))?;
        // The open handle follows the file to its new name.
        replacement.commit()?;
        Ok(run)
    }

    /// Copies what is to be kept of an older run; its final figures are not.
    fn take_over(&mut self, old: &RunSummary, epochs_done: u64, steps_done: u64) -> hdf5::Result<()> {
        if let Some(started) = old.attribute("started") {
            hdf::set_text(&self.file, "started", started)?;
        }
        let kept = |column: Option<&[f64]>, last: u64| {
            column.unwrap_or_default().iter().take_while(|&&key| key <= last as f64).count()
        };
        self.epochs = kept(old.epoch_column("epoch"), epochs_done);
        self.steps = kept(old.step_column("step"), steps_done);
        for (path, columns, key, rows, chunk) in [
            ("metrics/epoch", &old.epochs, "epoch", self.epochs, EPOCH_ROWS),
            ("metrics/step", &old.steps, "step", self.steps, STEP_ROWS),
        ] {
            let group = self.file.group(path)?;
            for (name, values) in columns {
                let rows = &values[..rows.min(values.len())];
                if name == key {
                    let keys: Vec<u64> = rows.iter().map(|&v| v as u64).collect();
                    column::<u64>(&group, name, chunk, 0)?;
                    extend(&group, name, 0, &keys)?;
                } else {
                    column::<f64>(&group, name, chunk, f64::NAN)?;
                    extend(&group, name, 0, rows)?;
                }
            }
        }
        // One row for each row of /metrics/epoch, and the most ranks there ever were.
        self.timings = self.epochs;
        let ranks = old.timing.iter().flat_map(|(_, rows)| rows.first()).map(Vec::len);
        self.width = ranks.fold(self.width, usize::max);
        let group = self.file.group("timing")?;
        for (phase, rows) in &old.timing {
            let mut seconds = Array2::from_elem((self.timings, self.width), f64::NAN);
            for (row, old) in seconds.outer_iter_mut().zip(rows) {
                row.into_iter().zip(old).for_each(|(new, &old)| *new = old);
            }
            let dataset = phase_dataset(&group, phase, self.width)?;
            dataset.resize(seconds.dim())?;
            if !seconds.is_empty() {
                dataset.write(&seconds)?;
            }
        }
        for (name, figures) in &old.baselines {
            let figures: Vec<(&str, f64)> = figures.iter().map(|(n, v)| (n.as_str(), *v)).collect();
            self.figures(&format!("baseline/{name}"), &figures)?;
        }
        Ok(())
    }

    /// Appends a row to `/metrics/epoch`. `epoch` is kept as u64, all else as f64; a column that is new, or absent
    /// from this row, is filled with NaN.
    ///
    /// # Errors
    /// `Internal` without an `epoch`; `Io` when the file cannot be extended.
    pub fn epoch(&mut self, row: &[(&str, f64)]) -> Result<()> {
        if !row.iter().any(|&(name, _)| name == "epoch") {
            return Err(Error::internal("store::run::epoch", "a row without a column epoch"));
        }
        let mut append = || -> hdf5::Result<()> {
            let group = self.file.group("metrics/epoch")?;
            for &(name, _) in row.iter().filter(|(name, _)| !group.link_exists(name)) {
                if name == "epoch" {
                    column::<u64>(&group, name, EPOCH_ROWS, 0)?;
                } else {
                    column::<f64>(&group, name, EPOCH_ROWS, f64::NAN)?;
                }
            }
            for dataset in group.datasets()? {
                dataset.resize((self.epochs + 1,))?;
            }
            for &(name, value) in row {
                let (dataset, at) = (group.dataset(name)?, self.epochs..self.epochs + 1);
                match name {
                    "epoch" => dataset.write_slice(&[value as u64], at)?,
                    _ => dataset.write_slice(&[value], at)?,
                }
            }
            self.epochs += 1;
            Ok(())
        };
        append().map_err(|e| failed(&self.path, "write /metrics/epoch", &e))
    }

    /// Appends rows to `/metrics/step`, with one write a column.
    ///
    /// # Errors
    /// `Io` when the file cannot be extended.
    pub fn steps(&mut self, rows: &[StepRow]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let append = || -> hdf5::Result<()> {
            let group = self.file.group("metrics/step")?;
            let steps: Vec<u64> = rows.iter().map(|r| r.step).collect();
            if !group.link_exists("step") {
                column::<u64>(&group, "step", STEP_ROWS, 0)?;
            }
            extend(&group, "step", self.steps, &steps)?;
            let columns: [(&str, fn(&StepRow) -> f64); 3] =
                [("loss", |r| r.loss), ("lr", |r| r.lr), ("grad_norm", |r| r.grad_norm)];
            for (name, value) in columns {
                let values: Vec<f64> = rows.iter().map(value).collect();
                if !group.link_exists(name) {
                    column::<f64>(&group, name, STEP_ROWS, f64::NAN)?;
                }
                extend(&group, name, self.steps, &values)?;
            }
            Ok(())
        };
        append().map_err(|e| failed(&self.path, "write /metrics/step", &e))?;
        self.steps += rows.len();
        Ok(())
    }

    /// Appends a row to `/timing/<phase>` for every phase: seconds, one value a rank. Ranks and phases that are
    /// absent get NaN.
    ///
    /// # Errors
    /// `Io` when the file cannot be extended.
    pub fn timing(&mut self, phases: &[(&str, &[f64])]) -> Result<()> {
        let width = phases.iter().map(|(_, seconds)| seconds.len()).fold(self.width, usize::max);
        let append = || -> hdf5::Result<()> {
            let group = self.file.group("timing")?;
            for &(phase, _) in phases.iter().filter(|(phase, _)| !group.link_exists(phase)) {
                phase_dataset(&group, phase, width)?;
            }
            for dataset in group.datasets()? {
                dataset.resize((self.timings + 1, width))?;
            }
            for &(phase, seconds) in phases {
                let row = ndarray::ArrayView1::from(seconds);
                group.dataset(phase)?.write_slice(row, ndarray::s![self.timings, ..seconds.len()])?;
            }
            Ok(())
        };
        append().map_err(|e| failed(&self.path, "write /timing", &e))?;
        self.width = width;
        self.timings += 1;
        Ok(())
    }

    /// Figures of a baseline (such as `last_value`: `test_mape`) as attributes of `/baseline/<name>`.
    ///
    /// # Errors
    /// `Io` when the file cannot be written.
    pub fn baseline(&mut self, name: &str, figures: &[(&str, f64)]) -> Result<()> {
        self.figures(&format!("baseline/{name}"), figures).map_err(|e| failed(&self.path, "write /baseline", &e))
    }

    /// Final figures as attributes of `/result`.
    ///
    /// # Errors
    /// `Io` when the file cannot be written.
    pub fn result(&mut self, figures: &[(&str, f64)]) -> Result<()> {
        self.figures("result", figures).map_err(|e| failed(&self.path, "write /result", &e))
    }

    fn figures(&self, path: &str, figures: &[(&str, f64)]) -> hdf5::Result<()> {
        let group = hdf::group(&self.file, path)?;
        figures.iter().try_for_each(|&(name, value)| hdf::set(&group, name, &value))
    }

    /// Brings all that was written to the disk's cache: from here on readers see it, and a kill does not lose it.
    ///
    /// # Errors
    /// `Io` when the disk is full.
    pub fn flush(&self) -> Result<()> {
        self.file.flush().map_err(|e| failed(&self.path, "flush the run file", &e))
    }

    /// Notes how the run ended (`done`, `stopped`, `diverged`, `failed`) and when, and closes the file.
    ///
    /// # Errors
    /// `Io` when the disk is full.
    pub fn finish(self, status: &str) -> Result<()> {
        let Self { path, file, .. } = self;
        let close = || -> hdf5::Result<()> {
            hdf::set_text(&file, "finished", &now())?;
            hdf::set_text(&file, "status", status)?;
            file.flush()?;
            file.close()
        };
        close().map_err(|e| failed(&path, "finish the run file", &e))
    }
}

fn failed(path: &Path, what: &str, error: &hdf5::Error) -> Error {
    Error::io(
        path,
        format!("cannot {what}: {}", hdf::cause(error)),
        "check the free space and the folder's permissions",
    )
}

/// Writes what is known at the start.
fn describe_run(file: &File, info: &RunInfo) -> hdf5::Result<()> {
    hdf::set(file, "format_version", &FORMAT_VERSION)?;
    hdf::set_text(file, "ddl_version", env!("CARGO_PKG_VERSION"))?;
    hdf::set_text(file, "commit", info.commit)?;
    hdf::set_text(file, "name", info.name)?;
    hdf::set_text(file, "started", &now())?;
    hdf::set(file, "ranks", &(info.ranks as u64))?;
    hdf::set_text(file, "status", "running")?;
    file.new_dataset::<VarLenUnicode>().create("config")?.write_scalar(&hdf::text_value(info.config)?)?;
    let environment = file.group("environment")?;
    info.environment.iter().try_for_each(|(name, value)| hdf::set_text(&environment, name, value))
}

/// The time as RFC 3339 in UTC, to the second.
fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// An empty extendible column.
fn column<T: H5Type + Into<hdf5::types::OwnedDynValue>>(
    group: &Group,
    name: &str,
    chunk: usize,
    absent: T,
) -> hdf5::Result<Dataset> {
    group.new_dataset::<T>().chunk(chunk).fill_value(absent).shape((0..,)).create(name)
}

/// An empty (epoch, rank) data set.
fn phase_dataset(group: &Group, phase: &str, width: usize) -> hdf5::Result<Dataset> {
    let builder = group.new_dataset::<f64>().chunk((TIMING_ROWS, width.clamp(1, 1024)));
    builder.fill_value(f64::NAN).shape((0.., 0..)).create(phase)
}

/// Writes `values` from row `start` on.
fn extend<T: H5Type>(group: &Group, name: &str, start: usize, values: &[T]) -> hdf5::Result<()> {
    let dataset = group.dataset(name)?;
    dataset.resize((start + values.len(),))?;
    if values.is_empty() { Ok(()) } else { dataset.write_slice(values, start..start + values.len()) }
}

/// `run.h5.damaged`, or with a number if there is one already: nothing that was saved is lost.
fn free_name(path: &Path) -> PathBuf {
    let with = |ending: String| {
        let mut name = path.as_os_str().to_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let first = with(".damaged".into());
    let more = (2..).map(|n: u32| with(format!(".damaged-{n}")));
    std::iter::once(first.clone()).chain(more).find(|name| !name.exists()).unwrap_or(first)
}
