//! Scaling studies: the same job on several numbers of ranks, each several times, as real runs of `ddl train`; what
//! came of it as tables, JSON, CSV and a picture; and a cost model for numbers of ranks that are not there.

pub mod forecast;
pub mod launch;
pub mod measure;
pub mod model;
pub mod plan;
mod plot;
pub mod probe;
mod record;
mod slurm;
pub mod statistics;
pub mod summary;
mod table;

use crate::comm::{self, Comm, Solo};
use crate::config::Job;
use crate::data::{Dataset, Part};
use crate::error::{Error, Result};
use crate::resource::cpu;
use crate::train::signal::StopFlag;
use crate::train::terminal::say;
use crate::train::{COMMIT, LocalData, Trainer};
use forecast::{Known, Network, Outlook};
use launch::{Choice, Ended, Launcher};
use measure::{Found, Measurement};
use model::Load;
use plan::{Limits, Mode, Point};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use summary::{Noise, Row};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The job, overrides applied.
    pub job: Job,
    /// Numbers of ranks in order. Empty: a prediction only.
    pub ranks: Vec<usize>,
    /// Runs on each number of ranks.
    pub repeats: usize,
    /// What stays fixed.
    pub mode: Mode,
    /// How long runs are.
    pub limits: Limits,
    /// Instead of `results/<name>-scale`, with the mode's name behind it unless it is strong.
    pub out: Option<PathBuf>,
    /// What starts ranks.
    pub launcher: Choice,
    /// Arguments for it.
    pub launcher_args: Vec<String>,
    /// Write Slurm scripts into this folder instead of running.
    pub slurm: Option<PathBuf>,
    /// The command line by which such a script collects.
    pub collect_command: Vec<String>,
    /// Run nothing, look at what is there.
    pub collect: bool,
    /// Print the model's predictions.
    pub predict: bool,
    /// What they assume.
    pub network: Network,
    /// Print JSON instead of tables.
    pub json: bool,
}

/// A study and what came of it; `scale.json` holds it.
#[derive(Debug, Serialize)]
pub struct Study {
    /// The job's name.
    pub job: String,
    /// What stayed fixed.
    pub mode: Mode,
    /// The batch of the fewest ranks.
    pub batch: usize,
    /// Parameters of the network.
    pub parameters: usize,
    /// CPU and instruction set.
    pub machine: String,
    /// Cores of this host.
    pub cores: usize,
    /// The program's version and commit.
    pub version: String,
    /// One for each number of ranks.
    pub rows: Vec<Row>,
    /// How many ranks are useful.
    pub noise: Option<Noise>,
    /// The model's word.
    pub prediction: Option<Outlook>,
}

impl Study {
    fn title(&self) -> String {
        let batch = match self.mode {
            Mode::Weak => format!("batch {} on {} rank(s) and growing with them", self.batch, self.rows[0].ranks),
            _ => format!("global batch {}", self.batch),
        };
        format!("{}: {} scaling, {batch}, {} steps of training", self.job, self.mode, self.rows[0].steps)
    }

    fn subtitle(&self) -> String {
        let repeats = self.rows.iter().map(|row| row.repeats).max().unwrap_or(1);
        let cores = if self.cores == 1 { "1 core".to_owned() } else { format!("{} cores", self.cores) };
        let repeats = if repeats == 1 { "1 run".to_owned() } else { format!("mean of {repeats} runs") };
        format!("{}, {cores} here; {repeats}", self.machine)
    }
}

/// `<job>-scale`; other modes than the usual one have folders of their own.
fn study_name(request: &Request) -> String {
    match request.mode {
        Mode::Strong => format!("{}-scale", request.job.name),
        mode => format!("{}-scale-{mode}", request.job.name),
    }
}

/// What the network and the data are, without ranks.
struct Work {
    samples: usize,
    parameters: usize,
    /// Elements of a gradient: the parameters, and what fills their slots up.
    gradient: usize,
    /// Of the optimizer.
    moments: usize,
}

/// Runs a study, or what is left of it.
///
/// # Errors
/// `Usage` for what does not fit; the first failed point's, after the others were tried; `Interrupted`.
pub fn run(request: &Request, comm: &dyn Comm) -> Result<()> {
    let probing = request.predict && request.ranks.is_empty();
    if let Some(launcher) = comm::launched().filter(|_| !probing) {
        let what = format!("was itself started by {}, but it starts the ranks of each point", launcher.name);
        let mend = "run it alone: ddl scale JOB.toml --ranks 1,2,4 (with --launcher-args for the launcher); or \
                    with --predict and without --ranks, to measure the network";
        return comm::agree(comm, Err(Error::usage("ddl scale", what, mend)));
    }
    let job = &request.job;
    let local = LocalData::stage(&job.data, comm)?;
    let data = comm::agree(comm, Dataset::open(&local.config, job.seed))?;
    let work = comm::agree(comm, work(job, &data))?;
    if request.ranks.is_empty() {
        let outlook = outlook(request, &work, Some(&data), &[], comm)?;
        if comm.rank() == 0 {
            say(&if request.json { json(&outlook)? } else { table::prediction(&outlook) });
        }
        return Ok(());
    }
    drop(data);
    let folder = request.out.clone().unwrap_or_else(|| Path::new("results").join(study_name(request)));
    let points =
        plan::points(job, request.mode, &request.ranks, request.repeats, request.limits, work.samples, &folder)?;
    if let Some(scripts) = &request.slurm {
        let submit =
            slurm::write(&study_name(request), &points, &request.launcher_args, &request.collect_command, scripts)?;
        say(&format!("wrote a script for each of {} points; submit them by {}", points.len(), submit.display()));
        return Ok(());
    }
    let (measurements, failure) = measurements(request, &points)?;
    if measurements.is_empty() {
        let none = Error::usage(folder.display().to_string(), "no point is done", "run the study without --collect");
        return Err(failure.unwrap_or(none));
    }
    let rows = summary::rows(&measurements, request.mode == Mode::Weak);
    let batch = match request.mode {
        Mode::Weak => job.train.global_batch(1) * rows[0].ranks,
        _ => job.train.global_batch(1),
    };
    let study = Study {
        job: job.name.clone(),
        mode: request.mode,
        batch,
        parameters: work.parameters,
        machine: measurements[0].machine.clone(),
        cores: cpu::cores(),
        version: format!("{} {COMMIT}", env!("CARGO_PKG_VERSION")),
        rows,
        noise: Noise::of(&measurements, batch, job.train.micro_batch()),
        prediction: request.predict.then(|| outlook(request, &work, None, &measurements, comm)).transpose()?,
    };
    record::write(&study, &folder)?;
    plot::write(&study, &folder)?;
    say(&if request.json { json(&study)? } else { format!("\n{}\n", table::text(&study)) });
    if !request.json {
        say(&format!("study  {}/scale.json, scale.csv, scale.svg, scale.png", folder.display()));
    }
    failure.map_or(Ok(()), Err)
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal("JSON", e))
}

fn work(job: &Job, data: &Dataset) -> Result<Work> {
    let trainer = Trainer::build(job, data, &Solo)?;
    let (layout, moments) = (trainer.model().layout(), trainer.slots().len());
    Ok(Work { samples: data.len(Part::Train), parameters: layout.elements(), gradient: layout.len(), moments })
}

/// The model's word: fitted to the study, or else to a probe on `data` and on the ranks that there are.
fn outlook(
    request: &Request,
    work: &Work,
    data: Option<&Dataset>,
    measurements: &[Measurement],
    comm: &dyn Comm,
) -> Result<Outlook> {
    let (job, gradient_bytes) = (&request.job, 4.0 * work.gradient as f64);
    let (compute, from) = match forecast::compute(measurements) {
        Some(fitted) => (fitted, "this study"),
        None => {
            let opened = match data {
                Some(_) => None,
                None => Some(Dataset::open(&LocalData::stage(&job.data, comm)?.config, job.seed)?),
            };
            let data = data.or(opened.as_ref()).ok_or_else(|| Error::internal("ddl scale", "no data to probe with"))?;
            (probe::compute(job, data, comm)?, if comm.size() > 1 { "a probe" } else { "a probe on one rank" })
        }
    };
    let load = Load {
        seconds_per_sample: compute.seconds_per_sample,
        seconds_per_step: compute.seconds_per_step,
        update_seconds: compute.update_seconds,
        across: forecast::across(job, work.moments),
        gradient_bytes,
        samples: work.samples,
        batch: job.train.global_batch(1),
        micro_batch: job.train.micro_batch(),
        weak: request.mode == Mode::Weak,
    };
    let pause = load.compute_seconds(comm.size()).unwrap_or_default();
    let shared = job.distributed.shares_memory();
    let links = probe::links(comm, gradient_bytes, Duration::from_secs_f64(pause), shared)?;
    let known = Known {
        given: request.network,
        links: Some(links),
        fitted: forecast::memory_link(measurements, gradient_bytes),
        cores: cpu::cores(),
        ranks: comm.size(),
    };
    Ok(Outlook::new(load, known, from))
}

/// All points that are done, after running those that are not; and the first failure.
fn measurements(request: &Request, points: &[Point]) -> Result<(Vec<Measurement>, Option<Error>)> {
    let (cores, stop) = (cpu::cores(), StopFlag::listen());
    let mut launcher = None;
    let (mut done, mut failure) = (Vec::new(), None);
    let mut missing = Vec::new();
    for point in points {
        match measure::look(point, request.collect)? {
            Found::Done(measurement) => {
                progress(request, point, &measurement, " (kept)");
                done.push(*measurement);
                continue;
            }
            Found::ToDo(_) if request.collect => {
                missing.push(point.name());
                continue;
            }
            Found::ToDo(Some(why)) => log::info!("{}: run again, since {why}", point.name()),
            Found::ToDo(None) => {}
        }
        if launcher.is_none() {
            let found = Launcher::find(request.launcher, request.launcher_args.clone())?;
            log::info!("ranks are started by {}", found.version);
            stop.listen_to_interrupts();
            launcher = Some(found);
        }
        let Some(launcher) = &launcher else { continue };
        match launcher.run(point, cores, &stop)? {
            Ended::Done => match measure::look(point, request.collect)? {
                Found::Done(measurement) => {
                    progress(request, point, &measurement, "");
                    done.push(*measurement);
                }
                Found::ToDo(why) => {
                    let what = why.unwrap_or_else(|| "it left no run file".into());
                    failure.get_or_insert(Error::internal(format!("point {}", point.name()), what));
                }
            },
            Ended::Failed(status, lines) => {
                let error = failed(point, status.code(), &lines);
                log::error!("{} ended with {status}; the end of its stderr.log:\n{lines}", point.name());
                // A wrong job or bad data fail everywhere alike.
                let hopeless = [2, 65].contains(&error.exit_code());
                failure.get_or_insert(error);
                if hopeless {
                    break;
                }
            }
            Ended::Interrupted => {
                let place = format!("ddl scale, at point {}", point.name());
                return Err(Error::Interrupted { place });
            }
        }
    }
    if !missing.is_empty() {
        log::warn!("{} of {} points are not done: {}", missing.len(), points.len(), missing.join(", "));
    }
    Ok((done, failure))
}

fn progress(request: &Request, point: &Point, measurement: &Measurement, note: &str) {
    if request.json {
        return;
    }
    let figure = |name: &str| measurement.figures.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
    let quality = match (figure("test_accuracy"), figure("test_mape")) {
        (Some(accuracy), _) => format!("  test accuracy {:.1} %", 100.0 * accuracy),
        (None, Some(mape)) => format!("  test MAPE {mape:.2} %"),
        _ => String::new(),
    };
    let (seconds, rate) = (measurement.seconds, measurement.samples / measurement.seconds);
    let shared = if measurement.ranks_per_core > 1.0 { "  oversubscribed" } else { "" };
    say(&format!("{:<20}  {seconds:.3} s  {rate:.0} samples/s{quality}{shared}{note}", point.name()));
}

/// The error of a point, of the same kind as the run's own: its exit code says which.
fn failed(point: &Point, code: Option<i32>, lines: &str) -> Error {
    let place = format!("point {}", point.name());
    let own = lines.lines().rev().find_map(|line| line.trim().strip_prefix("error: "));
    let ended = code.map_or("was killed".to_owned(), |code| format!("ended with exit code {code}"));
    let what = own.map_or_else(|| ended.clone(), |own| format!("{ended}: {own}"));
    let mend = format!(
        "see {}, then run the same command again: points that are done are kept",
        point.folder.join("stderr.log").display()
    );
    match code {
        Some(2) => Error::Usage { place, what, mend },
        Some(65) => Error::Data { place, what, mend },
        Some(70) => Error::Failed { place, what, mend },
        Some(74) => Error::Io { place, what, mend },
        _ => Error::Failed { place, what, mend },
    }
}

#[cfg(test)]
mod tests {
    use super::summary::tests::measurement;
    use super::*;

    /// 1, 2 and 4 ranks on 2 cores, twice each.
    pub fn study() -> Study {
        let runs = [(1, 10.0, 0.5), (2, 5.5, 1.0), (4, 6.0, 2.0)];
        let runs = runs.map(|(ranks, seconds, load)| [1, 2].map(|repeat| measurement(ranks, repeat, seconds, load)));
        Study {
            job: "digits".into(),
            mode: Mode::Strong,
            batch: 64,
            parameters: 1000,
            machine: "a CPU, avx2".into(),
            cores: 2,
            version: "0".into(),
            rows: summary::rows(&runs.concat(), false),
            noise: None,
            prediction: None,
        }
    }

    #[test]
    fn a_failed_point_keeps_its_exit_code_and_its_words() {
        let point = Point { ranks: 2, repeat: 1, folder: "f".into(), job: String::new() };
        for (code, expected) in
            [(Some(2), 2), (Some(65), 65), (Some(70), 70), (Some(74), 74), (Some(137), 70), (None, 70)]
        {
            let error = failed(&point, code, "noise\nerror: job.toml: it is bad; mend it\nmpirun noise");
            assert_eq!(error.exit_code(), expected);
            let text = error.to_string();
            for part in ["ranks-2/repeat-1", "it is bad", "f/stderr.log", "same command again"] {
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn pictures_are_made() {
        let dir = tempfile::tempdir().unwrap();
        plot::write(&study(), dir.path()).unwrap();
        let svg = std::fs::read_to_string(dir.path().join("scale.svg")).unwrap();
        assert!(svg.contains("oversubscribed") && svg.contains("time ratio 1.67") && svg.contains("1.82"), "{svg}");
        let png = std::fs::read(dir.path().join("scale.png")).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000);
        let names = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 2, "a temporary file is left");
    }
}
