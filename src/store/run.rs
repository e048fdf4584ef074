//! The run file `run.h5`, written by one process and readable while the run goes on.
//!
//! HDF5 files changed in place can be lost to a kill or a full disk in the middle of a flush, so each is written whole and
//! replaces the older one. That costs more the longer the run is; so what happens goes to the [journal](super::journal) at
//! once, and the run file is made from it when that is due: soon while it is small, and never for more than a small
//! share of the time.

use super::answers::{self, Answers};
use super::hdf;
use super::image::Image;
use super::journal::{self, Event, Journal};
use super::seal::{self, Kind, SEAL_BYTES};
use super::{RunSummary, read_run, summary::Columns};
use crate::error::{Error, Result};
use hdf5::types::VarLenUnicode;
use hdf5::{File, Group, H5Type};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const FORMAT_VERSION: u64 = 1;

/// The run file is made anew after so many times as long as that took.
const PAUSE: u32 = 50;
/// And after as long as it would take to write it at this rate.
const BYTES_PER_SECOND: f64 = 1e6;
/// Or when it has grown by one part in so many.
const GROWTH: u64 = 16;

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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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

impl StepRow {
    /// Of `/metrics/step`.
    pub(super) const COLUMNS: [StepColumn; 4] =
        [("step", |r| r.step as f64), ("loss", |r| r.loss), ("lr", |r| r.lr), ("grad_norm", |r| r.grad_norm)];
}

/// A run file. Dropped without [`finish`](Self::finish), it stays as it was when it was last made, with status `running`;
/// what was flushed since is in the journal.
pub struct RunFile {
    path: PathBuf,
    journal: Journal,
    /// Not in the journal yet.
    events: Vec<Event>,
    /// Rows so far, and those of them in the run file.
    rows: u64,
    rows_made: u64,
    /// When the run file was made, how long that took and how large it is.
    made: Instant,
    cost: Duration,
    bytes: usize,
}

impl RunFile {
    /// Starts a run file and its journal, replacing older ones.
    ///
    /// # Errors
    /// `Io` when the folder cannot be written to; an older file stays then.
    pub fn create(path: &Path, info: &RunInfo) -> Result<Self> {
        let journal = Journal::create(&journal::path_of(path), vec![start(info, 0, 0)])?;
        Self::with(path, journal, 0)
    }

    /// Goes on with a run after a checkpoint: rows past `epochs_done` and `steps_done` are dropped, since they will be
    /// computed again, and so are the final figures. The rows come from the journal, or else from the run file; what
    /// neither has is named in a warning. A run file that cannot be read is kept as `run.h5.damaged`.
    ///
    /// # Errors
    /// `Io` when a file cannot be opened or the folder not written to.
    pub fn resume(path: &Path, info: &RunInfo, epochs_done: u64, steps_done: u64) -> Result<Self> {
        let journal_path = journal::path_of(path);
        let told = Journal::resume(&journal_path)?;
        let made = match path.exists().then(|| read_run(path)) {
            None => None,
            Some(Ok(run)) => Some(run),
            Some(Err(error @ Error::Data { .. })) => {
                let aside = free_name(path);
                std::fs::rename(path, &aside)
                    .map_err(|e| Error::io(path, format!("cannot move the damaged file aside: {e}"), "remove it"))?;
                log::warn!("{error}: it is kept as {}, and made again", aside.display());
                None
            }
            Some(Err(error)) => return Err(error),
        };
        let reach = |run: &RunSummary| run.last_step().min(steps_done);
        let event = start(info, epochs_done, steps_done);
        let (found, journal) = match (told, made) {
            (Some((told, mut journal)), made) if made.as_ref().is_none_or(|made| reach(made) <= reach(&told)) => {
                journal.append(&[event], true)?;
                (told, journal)
            }
            (_, Some(made)) => {
                let whole = Event::Whole(Box::new(made.clone()));
                (made, Journal::create(&journal_path, vec![whole, event])?)
            }
            _ => (RunSummary::default(), Journal::create(&journal_path, vec![event])?),
        };
        if reach(&found) < steps_done {
            let first = reach(&found) + 1;
            log::warn!(
                "{}: the metrics of steps {first} to {steps_done} are lost; the weights are not",
                path.display()
            );
        }
        Self::with(path, journal, found.rows())
    }

    fn with(path: &Path, journal: Journal, rows: u64) -> Result<Self> {
        let (made, cost) = (Instant::now(), Duration::ZERO);
        let mut file =
            Self { path: path.to_path_buf(), journal, events: Vec::new(), rows, rows_made: 0, made, cost, bytes: 0 };
        file.make()?;
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
        self.rows += 1;
        self.events.push(Event::Epoch(owned(row)));
        Ok(())
    }

    /// Appends rows to `/metrics/step`.
    pub fn steps(&mut self, rows: &[StepRow]) {
        if !rows.is_empty() {
            self.rows += rows.len() as u64;
            self.events.push(Event::Steps(rows.to_vec()));
        }
    }

    /// Appends a row to `/timing/<phase>` for every phase: seconds, one value a rank. Ranks and phases that are
    /// absent get NaN.
    pub fn timing(&mut self, phases: &[(&str, &[f64])]) {
        let phases = phases.iter().map(|&(phase, seconds)| (phase.to_string(), seconds.to_vec())).collect();
        self.events.push(Event::Timing(phases));
    }

    /// Figures of a baseline (such as `last_value`: `test_mape`) as attributes of `/baseline/<name>`.
    pub fn baseline(&mut self, name: &str, figures: &[(&str, f64)]) {
        self.events.push(Event::Baseline(name.to_string(), owned(figures)));
    }

    /// Final figures as attributes of `/result`.
    pub fn result(&mut self, figures: &[(&str, f64)]) {
        self.events.push(Event::Result(owned(figures)));
    }

    /// What was answered on the test part, as `/evaluation`.
    pub fn answers(&mut self, answers: Answers) {
        self.events.push(Event::Answers(Box::new(answers)));
    }

    /// Puts all rows into the journal, so that a kill does not lose them, and into the run file where that is due.
    ///
    /// # Errors
    /// `Io` when the disk is full; the files stay as they were then, and a later flush may succeed.
    pub fn flush(&mut self) -> Result<()> {
        self.append(false)?;
        if self.is_due() { self.make() } else { Ok(()) }
    }

    /// Likewise, so that a power failure does not lose them either: before a checkpoint that counts on them.
    ///
    /// # Errors
    /// As [`RunFile::flush`].
    pub fn sync(&mut self) -> Result<()> {
        self.append(true)?;
        if self.is_due() { self.make() } else { Ok(()) }
    }

    /// Notes how the run ended (`done`, `stopped`, `diverged`, `failed`) and when, and makes the run file.
    ///
    /// # Errors
    /// `Io` when the disk is full.
    pub fn finish(mut self, status: &str) -> Result<()> {
        self.events.push(Event::End { status: status.to_string(), finished: now() });
        self.append(true)?;
        self.make()
    }

    fn append(&mut self, sync: bool) -> Result<()> {
        self.journal.append(&self.events, sync)?;
        self.events.clear();
        Ok(())
    }

    /// Whether making the run file is worth its cost.
    fn is_due(&self) -> bool {
        let pause = (self.cost * PAUSE).max(Duration::from_secs_f64(self.bytes as f64 / BYTES_PER_SECOND));
        (self.rows - self.rows_made) * GROWTH >= self.rows_made.max(1) || self.made.elapsed() >= pause
    }

    fn make(&mut self) -> Result<()> {
        let began = Instant::now();
        let run = self.journal.read()?;
        let unmade = |e: hdf5::Error| Error::internal("store::run", hdf::cause(&e));
        let image = Image::make(SEAL_BYTES, |file| write(file, &run)).map_err(unmade)?;
        let bytes = image.bytes().map_err(unmade)?;
        seal::write(&self.path, Kind::Run, bytes)?;
        (self.rows_made, self.bytes) = (self.rows, bytes.len());
        (self.made, self.cost) = (Instant::now(), began.elapsed());
        Ok(())
    }
}

fn start(info: &RunInfo, epochs: u64, steps: u64) -> Event {
    let attributes = [
        ("format_version", FORMAT_VERSION.to_string()),
        ("ddl_version", env!("CARGO_PKG_VERSION").to_string()),
        ("commit", info.commit.to_string()),
        ("name", info.name.to_string()),
        ("started", now()),
        ("ranks", info.ranks.to_string()),
        ("status", "running".to_string()),
    ];
    Event::Start {
        attributes: attributes.map(|(name, value)| (name.to_string(), value)).into(),
        config: info.config.to_string(),
        environment: info.environment.to_vec(),
        epochs,
        steps,
    }
}

fn owned(row: &[(&str, f64)]) -> Vec<(String, f64)> {
    row.iter().map(|&(name, value)| (name.to_string(), value)).collect()
}

fn write(file: &File, run: &RunSummary) -> hdf5::Result<()> {
    for (name, value) in &run.attributes {
        match (name.as_str(), value.parse::<u64>()) {
            ("format_version" | "ranks", Ok(number)) => hdf::set(file, name, &number)?,
            _ => hdf::set_text(file, name, value)?,
        }
    }
    hdf::write_texts(&file.new_dataset::<VarLenUnicode>().create("config")?, &[hdf::text_value(&run.config)?])?;
    let environment = file.create_group("environment")?;
    run.environment.iter().try_for_each(|(name, value)| hdf::set_text(&environment, name, value))?;
    write_columns(&file.create_group("metrics/epoch")?, &run.epochs, "epoch")?;
    write_columns(&file.create_group("metrics/step")?, &run.steps, "step")?;
    write_timing(file, run)?;
    let baseline = file.create_group("baseline")?;
    for (name, figures) in &run.baselines {
        let group = baseline.create_group(name)?;
        figures.iter().try_for_each(|(name, value)| hdf::set(&group, name, value))?;
    }
    let result = file.create_group("result")?;
    run.result.iter().try_for_each(|(name, value)| hdf::set(&result, name, value))?;
    answers::write(file, &run.answers)
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
