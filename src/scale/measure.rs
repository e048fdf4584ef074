//! What a run's file says of a point: time, where it went, and how good the network got.

use super::plan::Point;
use super::statistics::mean;
use crate::error::{Error, Result};
use crate::store::{RunSummary, read_run};
use crate::train::COMMIT;
use serde::Serialize;

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// How many ranks.
    pub ranks: usize,
    /// Of how many.
    pub repeat: usize,
    /// Seconds of training: the epochs' sum, without evaluation and checkpoints.
    pub seconds: f64,
    /// With evaluation and checkpoints; starting up and reading data left out.
    pub total_seconds: f64,
    /// Training samples seen.
    pub samples: f64,
    /// Optimizer steps.
    pub steps: usize,
    /// Final figures on the test part, and the last epoch's training loss.
    pub figures: Vec<(String, f64)>,
    /// The last epoch's gradient noise scale in samples, infinite where noise hides the gradient.
    pub noise_scale: Option<f64>,
    /// Where the time went.
    pub split: Split,
    /// How many ranks share a core on the fullest host.
    pub ranks_per_core: f64,
    /// How many hosts took part.
    pub hosts: usize,
    /// The CPU and the instruction set used.
    pub machine: String,
}

/// Where the seconds of training went: means over ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Split {
    /// Forward, backward and update.
    pub compute: f64,
    /// Gathering and normalising samples.
    pub data: f64,
    /// Sums over ranks themselves. All ranks leave a sum together and the last to come waits least, so this is the
    /// smallest time over ranks that was spent in sums, epoch by epoch.
    pub communication: f64,
    /// Waiting in sums for the slowest rank: the mean time over ranks in sums, less `communication`.
    pub waiting: f64,
    /// The rest of the epoch: the loop itself, and starting.
    pub other: f64,
    /// Largest over mean time of data and compute over ranks, less 1: the percent imbalance of DeRose, Homer and Johnson,
    /// "Detecting application load imbalance on high end massively parallel systems", Euro-Par 2007. A share, no seconds.
    pub imbalance: f64,
}

impl Split {
    /// Names and values, in order.
    pub fn columns(&self) -> [(&'static str, f64); 6] {
        [
            ("compute", self.compute),
            ("data", self.data),
            ("communication", self.communication),
            ("waiting", self.waiting),
            ("other", self.other),
            ("imbalance", self.imbalance),
        ]
    }

    /// The mean of some.
    pub fn mean(splits: &[Split]) -> Split {
        let mean = |part: fn(&Split) -> f64| mean(splits.iter().map(part)).unwrap_or(0.0);
        Split {
            compute: mean(|s| s.compute),
            data: mean(|s| s.data),
            communication: mean(|s| s.communication),
            waiting: mean(|s| s.waiting),
            other: mean(|s| s.other),
            imbalance: mean(|s| s.imbalance),
        }
    }
}

/// What is known of a point.
#[derive(Debug)]
pub enum Found {
    /// It is done.
    Done(Box<Measurement>),
    /// It is to be run; why, where there is something.
    ToDo(Option<String>),
}

/// Looks at a point's folder. A run by another version of ddl is not the point's, unless `any_version` will do.
///
/// # Errors
/// `Io` if its run file is there and cannot be read.
pub fn look(point: &Point, any_version: bool) -> Result<Found> {
    let path = point.run_file();
    if !path.exists() {
        return Ok(Found::ToDo(None));
    }
    let run = match read_run(&path) {
        Ok(run) => run,
        Err(Error::Data { what, .. }) => return Ok(Found::ToDo(Some(what))),
        Err(error) => return Err(error),
    };
    let same_version = run.attribute("commit").unwrap_or_default() == COMMIT;
    Ok(match differs(point, &run) {
        Some(why) => Found::ToDo(Some(why)),
        None if !same_version && !any_version => Found::ToDo(Some("another version of ddl ran it".into())),
        None => Found::Done(Box::new(measure(point, &run)?)),
    })
}

/// Why a run is not the point's, if so.
fn differs(point: &Point, run: &RunSummary) -> Option<String> {
    let status = run.attribute("status").unwrap_or_default();
    if status != "done" {
        return Some(format!("it ended as `{status}`"));
    }
    let ranks = run.attribute("ranks").and_then(|ranks| ranks.parse::<usize>().ok());
    if ranks != Some(point.ranks) {
        return Some(format!("it ran on {} ranks", ranks.unwrap_or(0)));
    }
    (run.config != point.job).then(|| "its job was another one".into())
}

/// A finished run's figures.
fn measure(point: &Point, run: &RunSummary) -> Result<Measurement> {
    let lacks = |what: &str| {
        let place = point.run_file().display().to_string();
        Error::data(place, format!("has no {what}"), "remove its folder and run the study again")
    };
    let seconds = run.epoch_column("seconds").ok_or_else(|| lacks("seconds"))?;
    let rates = run.epoch_column("samples_per_second").ok_or_else(|| lacks("samples_per_second"))?;
    let samples: f64 = seconds.iter().zip(rates).map(|(seconds, rate)| seconds * rate).sum();
    let trained: f64 = seconds.iter().sum();
    if trained.is_nan() || trained <= 0.0 {
        return Err(lacks("finished epoch"));
    }
    let loss = run.epoch_column("train_loss").and_then(|column| column.last()).map(|&v| ("train_loss".to_owned(), v));
    let environment = |name: &str| run.environment.iter().find(|(n, _)| n == name).map_or("", |(_, text)| text);
    let hosts: std::collections::BTreeSet<&str> = environment("hosts").split(',').collect();
    let aside: f64 = ["checkpoint", "evaluation"].iter().map(|phase| largest(&rows(run, phase))).sum();
    Ok(Measurement {
        ranks: point.ranks,
        repeat: point.repeat,
        seconds: trained,
        total_seconds: trained + aside,
        samples,
        steps: run.step_column("step").map_or(0, <[f64]>::len),
        figures: loss.into_iter().chain(run.result.iter().cloned()).collect(),
        noise_scale: run.epoch_column("noise_scale").and_then(|column| column.iter().rfind(|v| !v.is_nan()).copied()),
        split: split(trained, run),
        ranks_per_core: environment("ranks_per_core").parse().unwrap_or(0.0),
        hosts: hosts.len(),
        machine: format!("{}, {}", environment("cpu"), environment("instruction_set")),
    })
}

/// A phase's seconds by epoch and rank.
fn rows(run: &RunSummary, phase: &str) -> Vec<Vec<f64>> {
    run.timing.iter().find(|(name, _)| name == phase).map(|(_, rows)| rows.clone()).unwrap_or_default()
}

/// The largest sum over epochs of any rank.
fn largest(rows: &[Vec<f64>]) -> f64 {
    by_rank(rows).into_iter().fold(0.0, f64::max)
}

fn by_rank(rows: &[Vec<f64>]) -> Vec<f64> {
    let ranks = rows.iter().map(Vec::len).max().unwrap_or(0);
    (0..ranks).map(|rank| rows.iter().filter_map(|row| row.get(rank)).filter(|v| v.is_finite()).sum()).collect()
}

fn split(seconds: f64, run: &RunSummary) -> Split {
    let of = |phase: &str| by_rank(&rows(run, phase));
    let (data, sums) = (of("data"), rows(run, "communication"));
    let phases: Vec<Vec<f64>> = ["forward", "backward", "optimizer"].into_iter().map(of).collect();
    let compute: Vec<f64> =
        (0..data.len()).map(|rank| phases.iter().filter_map(|phase| phase.get(rank)).sum()).collect();
    let busy: Vec<f64> = compute.iter().zip(&data).map(|(compute, data)| compute + data).collect();
    let fastest: f64 = sums.iter().map(|row| row.iter().copied().fold(f64::INFINITY, f64::min)).sum();
    let communication = if fastest.is_finite() { fastest } else { 0.0 };
    let mean = |values: &[f64]| mean(values.iter().copied()).unwrap_or(0.0);
    let in_sums = mean(&by_rank(&sums));
    let (compute, data) = (mean(&compute), mean(&data));
    Split {
        compute,
        data,
        communication,
        waiting: (in_sums - communication).max(0.0),
        other: (seconds - compute - data - in_sums).max(0.0),
        imbalance: if mean(&busy) > 0.0 { busy.iter().copied().fold(0.0, f64::max) / mean(&busy) - 1.0 } else { 0.0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn run() -> RunSummary {
        let attributes = [("status", "done"), ("ranks", "2")];
        let phase = |name: &str, rows: [[f64; 2]; 2]| (name.to_owned(), rows.map(|row| row.to_vec()).to_vec());
        RunSummary {
            attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            config: "job".into(),
            environment: [("hosts", "a,a"), ("ranks_per_core", "2.00"), ("cpu", "c"), ("instruction_set", "i")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            epochs: vec![
                ("epoch".into(), vec![1.0, 2.0]),
                ("seconds".into(), vec![10.0, 12.0]),
                ("samples_per_second".into(), vec![100.0, 50.0]),
                ("train_loss".into(), vec![0.5, 0.25]),
                ("noise_scale".into(), vec![300.0, f64::INFINITY]),
            ],
            steps: vec![("step".into(), vec![1.0, 2.0, 3.0])],
            timing: vec![
                phase("data", [[1.0, 0.0], [1.0, 0.0]]),
                phase("forward", [[2.0, 3.0], [2.0, 3.0]]),
                phase("backward", [[4.0, 4.0], [4.0, 4.0]]),
                phase("optimizer", [[0.0, 0.0], [2.0, 0.0]]),
                phase("communication", [[2.0, 3.0], [3.0, 2.0]]),
                phase("checkpoint", [[0.5, 0.25], [0.5, 0.25]]),
                phase("evaluation", [[0.5, 1.0], [0.5, 1.0]]),
            ],
            result: vec![("test_accuracy".into(), 0.9)],
            ..RunSummary::default()
        }
    }

    fn point() -> Point {
        Point { ranks: 2, repeat: 1, folder: PathBuf::from("p"), job: "job".into() }
    }

    #[test]
    fn time_is_split_by_what_it_went_on() {
        let found = measure(&point(), &run()).unwrap();
        assert_eq!((found.seconds, found.total_seconds, found.samples, found.steps), (22.0, 25.0, 1600.0, 3));
        assert_eq!((found.ranks_per_core, found.hosts, found.noise_scale), (2.0, 1, Some(f64::INFINITY)));
        assert_eq!(found.figures, [("train_loss".to_owned(), 0.25), ("test_accuracy".to_owned(), 0.9)]);
        // Rank 0 computes 14 and reads 2 s, rank 1 computes 14 s; each is 5 s in sums, of which 2 are the sum.
        let Split { compute, data, communication, waiting, other, imbalance } = found.split;
        assert_eq!((compute, data, communication, waiting, other), (14.0, 1.0, 4.0, 1.0, 2.0));
        assert!((imbalance - (16.0 / 15.0 - 1.0)).abs() < 1e-12);
    }

    #[test]
    fn only_the_points_own_finished_runs_are_kept() {
        assert_eq!(differs(&point(), &run()), None);
        let changed = |change: fn(&mut RunSummary)| {
            let mut run = run();
            change(&mut run);
            differs(&point(), &run).unwrap_or_default()
        };
        assert!(changed(|run| run.attributes[0].1 = "stopped".into()).contains("stopped"));
        assert!(changed(|run| run.attributes[1].1 = "4".into()).contains("4 ranks"));
        assert!(changed(|run| run.config = "other".into()).contains("job"));
    }

    #[test]
    fn a_run_without_epochs_is_an_error_and_one_without_times_is_not() {
        let mut bare = run();
        bare.timing.clear();
        assert_eq!(measure(&point(), &bare).unwrap().split.compute, 0.0);
        bare.epochs.clear();
        assert_eq!(measure(&point(), &bare).unwrap_err().exit_code(), 65);
    }
}
