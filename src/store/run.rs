//! The run file `run.h5`, written by one process and readable while the run goes on.
//!
//! The rows are kept in memory (32 bytes a step), and each flush writes a new file that replaces the older one: HDF5
//! files changed in place can be lost to a kill or a full disk in the middle of a flush.

use super::seal::{self, Kind};
use super::{RunSummary, atomic::Replacement, hdf, read_run, summary::Columns};
use crate::error::{Error, Result};
use hdf5::types::VarLenUnicode;
use hdf5::{File, Group, H5Type};
use ndarray::Array2;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const FORMAT_VERSION: u64 = 1;

/// A power failure may cost this much of the run file; a kill costs nothing that was flushed.
const SYNC_EVERY: Duration = Duration::from_secs(1);

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

/// A column's name and its value in a row.
type StepColumn = (&'static str, fn(&StepRow) -> f64);

/// A run file. Dropped without [`finish`](Self::finish), it stays as it was at the last flush, with status `running`.
pub struct RunFile {
    path: PathBuf,
    run: RunSummary,
    synced: Instant,
}

impl RunFile {
    /// Starts a run file, replacing an older one.
    ///
    /// # Errors
    /// `Io` when the folder cannot be written to; an older file stays then.
    pub fn create(path: &Path, info: &RunInfo) -> Result<Self> {
        Self::start(path, info, None)
    }

    /// Goes on with a run file after a checkpoint: rows past `epochs_done` and `steps_done` are dropped, since they
    /// will be computed again, and so are the final figures. A file that cannot be read is named in a warning, kept
    /// as `run.h5.damaged`, and a new one is started.
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
            Ok(mut old) => {
                let epochs = cut(&mut old.epochs, "epoch", epochs_done);
                cut(&mut old.steps, "step", steps_done);
                // One row for each row of /metrics/epoch.
                old.timing.iter_mut().for_each(|(_, rows)| rows.resize(epochs, Vec::new()));
                Self::start(path, info, Some(old))
            }
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

    fn start(path: &Path, info: &RunInfo, old: Option<RunSummary>) -> Result<Self> {
        let started = old.as_ref().and_then(|run| run.attribute("started")).map_or_else(now, String::from);
        let attributes = [
            ("format_version", FORMAT_VERSION.to_string()),
            ("ddl_version", env!("CARGO_PKG_VERSION").to_string()),
            ("commit", info.commit.to_string()),
            ("name", info.name.to_string()),
            ("started", started),
            ("ranks", info.ranks.to_string()),
            ("status", "running".to_string()),
        ];
        let run = RunSummary {
            attributes: attributes.map(|(name, value)| (name.to_string(), value)).into(),
            config: info.config.to_string(),
            environment: info.environment.to_vec(),
            result: Vec::new(),
            ..old.unwrap_or_default()
        };
        let mut file = Self { path: path.to_path_buf(), run, synced: Instant::now() };
        file.write(true)?;
        Ok(file)
    }

    /// Appends a row to `/metrics/epoch`. `epoch` is kept as u64, all else as f64; a column that is new, or absent
    /// from this row, is filled with NaN.
    ///
    /// # Errors
    /// `Internal` without an `epoch`.
    pub fn epoch(&mut self, row: &[(&str, f64)]) -> Result<()> {
        if !row.iter().any(|&(name, _)| name == "epoch") {
            return Err(Error::internal("store::run::epoch", "a row without a column epoch"));
        }
        let rows = self.epochs();
        for &(name, value) in row {
            entry(&mut self.run.epochs, name).resize(rows, f64::NAN);
            entry(&mut self.run.epochs, name).push(value);
        }
        self.run.epochs.iter_mut().for_each(|(_, values)| values.resize(rows + 1, f64::NAN));
        Ok(())
    }

    fn epochs(&self) -> usize {
        self.run.epochs.iter().map(|(_, values)| values.len()).max().unwrap_or(0)
    }

    /// Appends rows to `/metrics/step`.
    pub fn steps(&mut self, rows: &[StepRow]) -> Result<()> {
        let columns: [StepColumn; 4] =
            [("step", |r| r.step as f64), ("loss", |r| r.loss), ("lr", |r| r.lr), ("grad_norm", |r| r.grad_norm)];
        for (name, value) in columns {
            entry(&mut self.run.steps, name).extend(rows.iter().map(value));
        }
        Ok(())
    }

    /// Appends a row to `/timing/<phase>` for every phase: seconds, one value a rank. Ranks and phases that are
    /// absent get NaN.
    pub fn timing(&mut self, phases: &[(&str, &[f64])]) -> Result<()> {
        let rows = self.run.timing.iter().map(|(_, rows)| rows.len()).max().unwrap_or(0);
        for &(phase, seconds) in phases {
            let timing = entry(&mut self.run.timing, phase);
            timing.resize(rows, Vec::new());
            timing.push(seconds.to_vec());
        }
        self.run.timing.iter_mut().for_each(|(_, timing)| timing.resize(rows + 1, Vec::new()));
        Ok(())
    }

    /// Figures of a baseline (such as `last_value`: `test_mape`) as attributes of `/baseline/<name>`.
    pub fn baseline(&mut self, name: &str, figures: &[(&str, f64)]) -> Result<()> {
        let baseline = entry(&mut self.run.baselines, name);
        figures.iter().for_each(|&(name, value)| *entry(baseline, name) = value);
        Ok(())
    }

    /// Final figures as attributes of `/result`.
    pub fn result(&mut self, figures: &[(&str, f64)]) -> Result<()> {
        figures.iter().for_each(|&(name, value)| *entry(&mut self.run.result, name) = value);
        Ok(())
    }

    /// Writes all rows: from here on readers see them, and a kill does not lose them.
    ///
    /// # Errors
    /// `Io` when the disk is full; the file stays as it was then, and a later flush may succeed.
    pub fn flush(&mut self) -> Result<()> {
        self.write(self.synced.elapsed() > SYNC_EVERY)
    }

    /// Notes how the run ended (`done`, `stopped`, `diverged`, `failed`) and when, and flushes.
    ///
    /// # Errors
    /// `Io` when the disk is full.
    pub fn finish(mut self, status: &str) -> Result<()> {
        *entry(&mut self.run.attributes, "finished") = now();
        *entry(&mut self.run.attributes, "status") = status.to_string();
        self.write(true)
    }

    fn write(&mut self, sync: bool) -> Result<()> {
        let replacement = Replacement::new(&self.path)?;
        let failed = |what: String| {
            let mend = "check the free space and the folder's permissions";
            Error::io(&self.path, format!("cannot write the run file: {what}"), mend)
        };
        write(replacement.temporary(), &self.run).map_err(|e| failed(hdf::cause(&e)))?;
        seal::write(replacement.temporary(), Kind::Run).map_err(|e| failed(e.to_string()))?;
        if !sync {
            return replacement.commit_unsynced();
        }
        self.synced = Instant::now();
        replacement.commit()
    }
}

/// The value of `name`, made if it is not there.
fn entry<'a, T: Default>(list: &'a mut Vec<(String, T)>, name: &str) -> &'a mut T {
    let at = list.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
        list.push((name.to_string(), T::default()));
        list.len() - 1
    });
    &mut list[at].1
}

/// Cuts columns to the leading rows whose `key` is at most `last`; returns their number.
fn cut(columns: &mut Columns, key: &str, last: u64) -> usize {
    let keys = columns.iter().find(|(name, _)| name == key).map_or(&[][..], |(_, values)| values);
    let kept = keys.iter().take_while(|&&k| k <= last as f64).count();
    columns.iter_mut().for_each(|(_, values)| values.resize(kept, f64::NAN));
    kept
}

fn write(path: &Path, run: &RunSummary) -> hdf5::Result<()> {
    let file = hdf::create_sealable(path)?;
    for (name, value) in &run.attributes {
        match (name.as_str(), value.parse::<u64>()) {
            ("format_version" | "ranks", Ok(number)) => hdf::set(&file, name, &number)?,
            _ => hdf::set_text(&file, name, value)?,
        }
    }
    file.new_dataset::<VarLenUnicode>().create("config")?.write_scalar(&hdf::text_value(&run.config)?)?;
    let environment = file.create_group("environment")?;
    run.environment.iter().try_for_each(|(name, value)| hdf::set_text(&environment, name, value))?;
    write_columns(&file.create_group("metrics/epoch")?, &run.epochs, "epoch")?;
    write_columns(&file.create_group("metrics/step")?, &run.steps, "step")?;
    write_timing(&file, run)?;
    let baseline = file.create_group("baseline")?;
    for (name, figures) in &run.baselines {
        let group = baseline.create_group(name)?;
        figures.iter().try_for_each(|(name, value)| hdf::set(&group, name, value))?;
    }
    let result = file.create_group("result")?;
    run.result.iter().try_for_each(|(name, value)| hdf::set(&result, name, value))?;
    drop((environment, baseline, result));
    file.flush()?;
    file.close()
}

/// Each column as a 1-D extendible data set; the one named `key` as u64.
fn write_columns(group: &Group, columns: &Columns, key: &str) -> hdf5::Result<()> {
    for (name, values) in columns {
        if name == key {
            let keys: Vec<u64> = values.iter().map(|&v| v as u64).collect();
            write_column(group, name, &keys)?;
        } else {
            write_column(group, name, values)?;
        }
    }
    Ok(())
}

fn write_column<T: H5Type>(group: &Group, name: &str, values: &[T]) -> hdf5::Result<()> {
    let builder = group.new_dataset::<T>().chunk(values.len().clamp(1, 1 << 16)).shape((values.len()..,));
    let dataset = builder.create(name)?;
    if values.is_empty() { Ok(()) } else { dataset.write_raw(values) }
}

/// Each phase as (epoch, rank), as wide as the most ranks the run ever had.
fn write_timing(file: &File, run: &RunSummary) -> hdf5::Result<()> {
    let group = file.create_group("timing")?;
    let width = run.timing.iter().flat_map(|(_, rows)| rows).map(Vec::len).max().unwrap_or(0);
    for (phase, rows) in &run.timing {
        let mut seconds = Array2::from_elem((rows.len(), width), f64::NAN);
        for (mut row, values) in seconds.outer_iter_mut().zip(rows) {
            row.iter_mut().zip(values).for_each(|(to, &from)| *to = from);
        }
        let chunk = (rows.len().clamp(1, 256), width.clamp(1, 256));
        let dataset = group.new_dataset::<f64>().chunk(chunk).shape((rows.len().., width..)).create(phase.as_str())?;
        if !seconds.is_empty() {
            dataset.write(&seconds)?;
        }
    }
    Ok(())
}

/// The time as RFC 3339 in UTC, to the second.
fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
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
