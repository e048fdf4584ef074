//! Which runs make up a study: the job of each number of ranks and each repeat.

use crate::config::{Batch, Job};
use crate::error::{Error, Result};
use serde::Serialize;
use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};

/// What stays the same from one number of ranks to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The job as it is: the global batch and the samples stay, ranks share them. How much sooner is it done?
    Strong,
    /// Each rank's batch and its number of steps stay, so the global batch grows with the ranks. How much more gets done?
    Weak,
    /// The global batch and a number of steps (--steps, or 100) stay. How long does a step take?
    FixedBatch,
}

impl Display for Mode {
    /// As in `--mode`.
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// Steps of a point in fixed-batch mode.
const DEFAULT_STEPS: u64 = 100;
/// More ranks than this are a mistake.
const MOST_RANKS: usize = 1 << 20;

/// How long each run is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Instead of the job's epochs.
    pub epochs: Option<u64>,
    /// Steps of a run, at most.
    pub steps: Option<u64>,
}

/// One run of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// How many ranks.
    pub ranks: usize,
    /// From 1.
    pub repeat: usize,
    /// Its own folder.
    pub folder: PathBuf,
    /// Its job, resolved, as TOML.
    pub job: String,
}

impl Point {
    /// `ranks-2/repeat-1`.
    pub fn name(&self) -> String {
        format!("ranks-{}/repeat-{}", self.ranks, self.repeat)
    }

    /// The run file.
    pub fn run_file(&self) -> PathBuf {
        self.folder.join("run.h5")
    }

    /// The job file.
    pub fn job_file(&self) -> PathBuf {
        self.folder.join("job.toml")
    }
}

/// The numbers of ranks of `1,2,4`, in order.
///
/// # Errors
/// `Usage` for anything but whole numbers from 1, or one given twice.
pub fn parse_ranks(text: &str) -> Result<Vec<usize>> {
    let mend = "write numbers from 1 with commas between them, such as --ranks 1,2,4";
    let wrong = |what: String| Error::usage(format!("--ranks {text}"), what, mend);
    let mut ranks = Vec::new();
    for part in text.split(',') {
        let number = part.trim().parse::<usize>().ok().filter(|&ranks| (1..=MOST_RANKS).contains(&ranks));
        let number = number.ok_or_else(|| wrong(format!("`{}` is no number of ranks", part.trim())))?;
        if ranks.contains(&number) {
            return Err(wrong(format!("{number} stands there twice")));
        }
        ranks.push(number);
    }
    ranks.sort_unstable();
    Ok(ranks)
}

/// The runs of a study, repeat by repeat, so that a machine that slows down slows all numbers of ranks alike. Repeat k
/// has the job's seed + k − 1: its deviation is that of another seed, the same ones for every number of ranks.
///
/// # Errors
/// `Usage` if a number of ranks does not fit the batch, or the mode not the job.
pub fn points(
    job: &Job,
    mode: Mode,
    ranks: &[usize],
    repeats: usize,
    limits: Limits,
    samples: usize,
    folder: &Path,
) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for repeat in 1..=repeats {
        for &n in ranks {
            let mut of_point = job_for(job, mode, n, ranks[0], limits, samples)?;
            of_point.seed = of_point.seed.wrapping_add(repeat as u64 - 1) & (i64::MAX as u64);
            let folder = folder.join(format!("ranks-{n}")).join(format!("repeat-{repeat}"));
            points.push(Point { ranks: n, repeat, folder, job: of_point.resolved()? });
        }
    }
    Ok(points)
}

/// The job on `ranks` ranks. It is evaluated and saved once, at its end.
fn job_for(job: &Job, mode: Mode, ranks: usize, fewest: usize, limits: Limits, samples: usize) -> Result<Job> {
    let mut job = job.clone();
    let train = &mut job.train;
    let micro = train.micro_batch();
    train.micro_batch = Some(micro);
    (train.checkpoint_every, train.checkpoint_steps, train.evaluate_every, train.keep_checkpoints) = (0, 0, 0, 1);
    train.epochs = limits.epochs.unwrap_or(train.epochs);
    let steps_an_epoch = |batch: usize| samples.div_ceil(batch).max(1) as u64;
    match (mode, train.batch()) {
        (Mode::Strong | Mode::FixedBatch, Batch::PerRank(_)) => {
            let what = format!("the batch grows with the ranks, which --mode {mode} holds fixed");
            let mend = "use --mode weak, or batch_size in the job";
            return Err(Error::usage(format!("{}, train.batch_per_rank", job.file), what, mend));
        }
        (Mode::Strong, _) => train.max_steps = limits.steps.unwrap_or(train.max_steps),
        (Mode::FixedBatch, Batch::Global(batch)) => {
            train.max_steps = limits.steps.unwrap_or(DEFAULT_STEPS);
            train.epochs = train.epochs.max(train.max_steps.div_ceil(steps_an_epoch(batch)));
        }
        (Mode::Weak, Batch::Global(each) | Batch::PerRank(each)) => {
            (train.batch_size, train.batch_per_rank) = (None, Some(each));
            let whole = train.epochs * steps_an_epoch(each * fewest);
            let limit = if train.max_steps > 0 { train.max_steps.min(whole) } else { whole };
            train.max_steps = limits.steps.unwrap_or(limit);
            // As many passes as so many larger batches take.
            train.epochs = train.max_steps.div_ceil(steps_an_epoch(each * ranks)).max(1);
        }
    }
    let batch = job.train.global_batch(ranks);
    let parts = batch.div_ceil(micro);
    if ranks > parts {
        let what = format!("{ranks} ranks, but a batch of {batch} has only {parts} micro-batches of {micro}");
        let mend = if batch >= ranks {
            format!("add --set train.micro_batch={}, or use --mode weak", batch / ranks)
        } else {
            format!("leave out what is more than {batch}, which train.micro_batch=1 allows, or use --mode weak")
        };
        return Err(Error::usage("--ranks", what, mend));
    }
    Ok(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(train: &str) -> Job {
        let text = format!(
            "name = \"n\"\nseed = 7\ndata.source = \"synthetic\"\nloss.type = \"mse\"\noptimizer = {{ type = \"sgd\", lr = 0.1 }}\n\
             model.layers = [{{ type = \"linear\", out_features = 1 }}]\n[train]\nepochs = 4\n{train}\n"
        );
        Job::parse(&text, "n.toml", &[]).unwrap()
    }

    fn train(job_text: &str, mode: Mode, ranks: usize, limits: Limits) -> crate::config::Train {
        job_for(&job(job_text), mode, ranks, 1, limits, 1000).unwrap().train
    }

    const STEPS: Limits = Limits { epochs: None, steps: Some(30) };

    #[test]
    fn lists_of_ranks_are_checked() {
        assert_eq!(parse_ranks("4, 1,2").unwrap(), [1, 2, 4]);
        for text in ["", "0", "1,1", "1,,2", "x", "-1", "1.5", "99999999999999999999", "2000000"] {
            let error = parse_ranks(text).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(error.to_string().contains("--ranks 1,2,4"), "{error}");
        }
    }

    #[test]
    fn strong_keeps_the_job() {
        let text = "batch_size = 100\nmicro_batch = 10";
        let plain = train(text, Mode::Strong, 4, Limits::default());
        assert_eq!((plain.batch_size, plain.epochs, plain.max_steps), (Some(100), 4, 0));
        assert_eq!((plain.evaluate_every, plain.checkpoint_every, plain.keep_checkpoints), (0, 0, 1));
        let short = train(text, Mode::Strong, 4, Limits { epochs: Some(2), steps: Some(30) });
        assert_eq!((short.epochs, short.max_steps), (2, 30));
    }

    #[test]
    fn weak_gives_each_rank_the_same_work() {
        let text = "batch_size = 100\nmicro_batch = 10";
        // 4 epochs of 10 steps on one rank; on 4 ranks an epoch is 3 steps.
        for (ranks, epochs) in [(1, 4), (4, 14)] {
            let weak = train(text, Mode::Weak, ranks, Limits::default());
            assert_eq!((weak.batch_size, weak.batch_per_rank), (None, Some(100)));
            assert_eq!((weak.max_steps, weak.epochs), (40, epochs));
        }
        assert_eq!(train("batch_per_rank = 100", Mode::Weak, 4, STEPS).max_steps, 30);
    }

    #[test]
    fn fixed_batch_takes_a_number_of_steps() {
        let text = "batch_size = 100\nmicro_batch = 10";
        let fixed = train(text, Mode::FixedBatch, 2, Limits::default());
        assert_eq!((fixed.batch_size, fixed.max_steps, fixed.epochs), (Some(100), 100, 10));
        assert_eq!(train(text, Mode::FixedBatch, 2, STEPS).max_steps, 30);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_mend() {
        let refused = |text: &str, mode, ranks| {
            let error = job_for(&job(text), mode, ranks, 1, Limits::default(), 1000).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        let few = refused("batch_size = 100\nmicro_batch = 50", Mode::Strong, 4);
        assert!(few.contains("train.micro_batch=25"), "{few}");
        assert!(refused("batch_size = 3", Mode::Strong, 4).contains("more than 3"));
        assert!(refused("batch_per_rank = 8", Mode::Strong, 2).contains("--mode weak"));
    }

    #[test]
    fn repeats_differ_by_their_seed_alone() {
        let job = job("batch_size = 100\nmicro_batch = 10");
        let points = points(&job, Mode::Strong, &[1, 2], 2, Limits::default(), 1000, Path::new("s")).unwrap();
        let names: Vec<String> = points.iter().map(Point::name).collect();
        assert_eq!(names, ["ranks-1/repeat-1", "ranks-2/repeat-1", "ranks-1/repeat-2", "ranks-2/repeat-2"]);
        assert_eq!(points[0].job, points[1].job);
        assert_eq!(points[2].job, points[0].job.replace("seed = 7", "seed = 8"));
        assert!(points[2].job.contains("seed = 8"));
    }
}
