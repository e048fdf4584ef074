//! The journal of a run, `run.journal` beside `run.h5`: everything the run file will hold, appended as it comes.
//!
//! An HDF5 file is written whole or not at all, so its cost grows with the run; what is appended here costs only what is
//! new, and a kill loses nothing of it. `run.h5` is made from it, now and then and at the end, and can be made again.
//!
//! The file is a title, then records: length and CRC-32 of the payload (u32, little-endian), and the payload, an [`Event`] in
//! postcard's encoding. A kill or a power cut may leave a torn record at the end, which is cut off.

use super::atomic::{folder_of, sync_folder};
use super::run::StepRow;
use super::{Answers, RunSummary, summary::Figures};
use crate::error::{Error, Result};
use crate::resource::open_file;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const TITLE: &[u8] = b"ddl journal 1\n";
/// A longer record is damage.
const MOST_BYTES: u32 = 1 << 28;
/// Rows of steps in a record, at most.
const MOST_ROWS: usize = 1 << 16;

const MEND: &str = "check the free space and the folder's permissions";

/// What can happen to a run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Event {
    /// A run starts, or goes on after so many epochs and steps: later rows and the final figures are void.
    Start {
        attributes: Vec<(String, String)>,
        config: String,
        environment: Vec<(String, String)>,
        epochs: u64,
        steps: u64,
    },
    /// All that a run file held.
    Whole(Box<RunSummary>),
    /// A row of `/metrics/epoch`.
    Epoch(Vec<(String, f64)>),
    /// Rows of `/metrics/step`.
    Steps(Vec<StepRow>),
    /// A row of `/timing`: seconds by phase and rank.
    Timing(Vec<(String, Vec<f64>)>),
    /// Figures of a baseline.
    Baseline(String, Figures),
    /// Final figures.
    Result(Figures),
    /// How the run ended, and when.
    End { status: String, finished: String },
    /// What was answered on the test part.
    Answers(Box<Answers>),
}

impl Event {
    /// Whether a run file can keep it: what is not so is damage, whatever its checksum says.
    fn is_sound(&self) -> bool {
        match self {
            Event::Start { attributes, environment, .. } => are_names(attributes) && are_names(environment),
            Event::Whole(run) => {
                let (columns, timing) = (are_names(&run.epochs) && are_names(&run.steps), are_names(&run.timing));
                let figures = are_names(&run.result) && run.baselines.iter().all(|(_, figures)| are_names(figures));
                let about = are_names(&run.attributes) && are_names(&run.environment);
                about && columns && timing && are_names(&run.baselines) && figures
            }
            Event::Epoch(row) => are_names(row),
            Event::Timing(phases) => are_names(phases),
            Event::Baseline(name, figures) => is_name(name) && are_names(figures),
            Event::Result(figures) => are_names(figures),
            Event::Answers(answers) => answers.is_sound(),
            Event::Steps(_) | Event::End { .. } => true,
        }
    }

    /// Lets it happen.
    pub(super) fn apply(self, run: &mut RunSummary) {
        match self {
            Event::Whole(whole) => *run = *whole,
            Event::Start { attributes, config, environment, epochs, steps } => {
                run.cut(epochs, steps);
                let started = run.attribute("started").map(String::from);
                (run.attributes, run.config, run.environment) = (attributes, config, environment);
                if let Some(started) = started {
                    *entry(&mut run.attributes, "started") = started;
                }
                run.result.clear();
                run.answers = Answers::default();
            }
            Event::Epoch(row) => {
                let rows = run.epochs.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
                for (name, value) in row {
                    let column = entry(&mut run.epochs, &name);
                    column.resize(rows, f64::NAN);
                    column.push(value);
                }
                run.epochs.iter_mut().for_each(|(_, values)| values.resize(rows + 1, f64::NAN));
            }
            Event::Steps(rows) => {
                for (name, value) in StepRow::COLUMNS {
                    entry(&mut run.steps, name).extend(rows.iter().map(value));
                }
            }
            Event::Timing(phases) => {
                let rows = run.timing.iter().map(|(_, rows)| rows.len()).max().unwrap_or(0);
                for (phase, seconds) in phases {
                    let timing = entry(&mut run.timing, &phase);
                    timing.resize(rows, Vec::new());
                    timing.push(seconds);
                }
                run.timing.iter_mut().for_each(|(_, timing)| timing.resize(rows + 1, Vec::new()));
            }
            Event::Baseline(name, figures) => merge(entry(&mut run.baselines, &name), figures),
            Event::Result(figures) => merge(&mut run.result, figures),
            Event::Answers(answers) => run.answers = *answers,
            Event::End { status, finished } => {
                *entry(&mut run.attributes, "status") = status;
                *entry(&mut run.attributes, "finished") = finished;
            }
        }
    }
}

/// Whether HDF5 can name something so.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name != "." && !name.contains(['\0', '/'])
}

/// Whether these can stand side by side.
fn are_names<T>(list: &[(String, T)]) -> bool {
    let mut known = HashSet::new();
    list.iter().all(|(name, _)| is_name(name) && known.insert(name))
}

/// The value of `name`, made if it is not there.
fn entry<'a, T: Default>(list: &'a mut Vec<(String, T)>, name: &str) -> &'a mut T {
    let at = list.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
        list.push((name.to_string(), T::default()));
        list.len() - 1
    });
    &mut list[at].1
}

fn merge(known: &mut Figures, figures: Figures) {
    figures.into_iter().for_each(|(name, value)| *entry(known, &name) = value);
}

/// Where the journal of a run file is: `run.journal` for `run.h5`.
pub(super) fn path_of(run: &Path) -> PathBuf {
    run.with_extension("journal")
}

/// A journal that is appended to.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes that are whole records.
    len: u64,
}

impl Journal {
    /// Starts a journal, in place of an older one.
    ///
    /// # Errors
    /// `Io` when the folder cannot be written to; an older one stays then.
    pub(super) fn create(path: &Path, first: Vec<Event>) -> Result<Self> {
        let mut bytes = TITLE.to_vec();
        for event in first {
            bytes.extend(record(&event)?);
        }
        super::atomic::write(path, &bytes)?;
        Self::open(path, bytes.len() as u64)
    }

    /// Goes on behind the `len` bytes that are whole.
    fn open(path: &Path, len: u64) -> Result<Self> {
        let failed = |e: io::Error| Error::io(path, format!("cannot be opened: {e}"), MEND);
        let mut file = File::options().read(true).write(true).open(path).map_err(failed)?;
        file.set_len(len).and_then(|()| file.seek(SeekFrom::Start(len))).map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), file, len })
    }

    /// What a journal tells, and the journal to go on with; None if there is none, or it is none.
    ///
    /// # Errors
    /// `Io` if it is there and cannot be read.
    pub(super) fn resume(path: &Path) -> Result<Option<(RunSummary, Self)>> {
        if !path.exists() {
            return Ok(None);
        }
        match replay(path)? {
            Some((run, len)) => Ok(Some((run, Self::open(path, len)?))),
            None => Ok(None),
        }
    }

    /// All that happened so far.
    ///
    /// # Errors
    /// `Io` if it cannot be read; `Data` if it was changed meanwhile.
    pub(super) fn read(&self) -> Result<RunSummary> {
        match replay(&self.path)? {
            Some((run, len)) if len == self.len => Ok(run),
            _ => {
                let what = "it was changed or cut off while the run goes on";
                Err(Error::data(self.path.display().to_string(), what, "let nothing else write there"))
            }
        }
    }

    /// Appends; with `sync` also down to the disk.
    ///
    /// # Errors
    /// `Io` when the disk is full: nothing is appended then, and a later attempt may succeed.
    pub(super) fn append(&mut self, events: &[Event], sync: bool) -> Result<()> {
        let mut bytes = Vec::new();
        for event in events {
            bytes.extend(record(event)?);
        }
        let written = self.file.write_all(&bytes).and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
        if let Err(e) = written {
            // Half a record must not stand between this one and the next.
            let back = self.file.set_len(self.len).and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
            let lost = back.err().map_or(String::new(), |e| format!(", nor cut back: {e}"));
            return Err(Error::io(&self.path, format!("cannot be written: {e}{lost}"), MEND));
        }
        self.len += bytes.len() as u64;
        if sync {
            let _ = sync_folder(folder_of(&self.path));
        }
        Ok(())
    }
}

fn record(event: &Event) -> Result<Vec<u8>> {
    if let Event::Steps(rows) = event
        && rows.len() > MOST_ROWS
    {
        let pieces = rows.chunks(MOST_ROWS).map(|rows| record(&Event::Steps(rows.to_vec())));
        return Ok(pieces.collect::<Result<Vec<_>>>()?.concat());
    }
    let payload = postcard::to_stdvec(event).map_err(|e| Error::internal("store::journal", e))?;
    let mut record = Vec::with_capacity(8 + payload.len());
    record.extend((payload.len() as u32).to_le_bytes());
    record.extend(crc32fast::hash(&payload).to_le_bytes());
    record.extend(payload);
    Ok(record)
}

/// What the whole records of a journal tell, and how many bytes they take; None if it has none.
fn replay(path: &Path) -> Result<Option<(RunSummary, u64)>> {
    let failed = |e: io::Error| Error::io(path, format!("cannot be read: {e}"), "check the path and the disk");
    let mut file = BufReader::with_capacity(1 << 18, open_file(path, "remove what is there")?);
    let mut title = [0; TITLE.len()];
    if !filled(&mut file, &mut title).map_err(failed)? || title != TITLE {
        return Ok(None);
    }
    let (mut run, mut len, mut payload) = (RunSummary::default(), TITLE.len() as u64, Vec::new());
    let mut records = 0;
    loop {
        let mut head = [0; 8];
        if !filled(&mut file, &mut head).map_err(failed)? {
            break;
        }
        let [bytes, crc] = [&head[..4], &head[4..]].map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if bytes > MOST_BYTES {
            break;
        }
        payload.clear();
        let read = file.by_ref().take(u64::from(bytes)).read_to_end(&mut payload).map_err(failed)?;
        if read < bytes as usize || crc32fast::hash(&payload) != crc {
            break;
        }
        let Ok(event) = postcard::from_bytes::<Event>(&payload) else { break };
        if !event.is_sound() {
            break;
        }
        event.apply(&mut run);
        records += 1;
        len += 8 + u64::from(bytes);
    }
    Ok((records > 0).then_some((run, len)))
}

/// Whether there were as many bytes.
fn filled(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(range: std::ops::Range<u64>) -> Event {
        Event::Steps(range.map(|step| StepRow { step, loss: f64::NAN, lr: 0.1, grad_norm: 1e300 }).collect())
    }

    #[test]
    fn a_torn_or_damaged_end_is_cut_off_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.journal");
        let mut journal = Journal::create(&path, vec![steps(1..4)]).unwrap();
        let first = journal.len;
        journal.append(&[steps(4..9), Event::Epoch(vec![("epoch".into(), 1.0)])], true).unwrap();
        let good = std::fs::read(&path).unwrap();
        assert_eq!(journal.read().unwrap().step_column("step").unwrap().len(), 8);
        for cut in 0..good.len() {
            std::fs::write(&path, &good[..cut]).unwrap();
            let found = Journal::resume(&path).unwrap();
            assert_eq!(found.is_some(), cut as u64 >= first, "cut at {cut}");
            if let Some((run, mut journal)) = found {
                assert!([3, 8].contains(&run.step_column("step").unwrap().len()));
                journal.append(&[Event::Epoch(vec![("epoch".into(), 7.0)])], false).unwrap();
                assert_eq!(journal.read().unwrap().epoch_column("epoch").unwrap().last(), Some(&7.0));
            }
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            std::fs::write(&path, &bad).unwrap();
            let found = Journal::resume(&path).unwrap();
            assert!(found.is_none_or(|(run, _)| run.step_column("step").is_none_or(|steps| steps.len() <= 8)));
        }
    }

    #[test]
    fn many_rows_take_several_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.journal");
        let rows = 2 * MOST_ROWS as u64 + 5;
        let journal = Journal::create(&path, vec![steps(0..rows)]).unwrap();
        assert_eq!(journal.read().unwrap().step_column("grad_norm").unwrap().len() as u64, rows);
    }
}
