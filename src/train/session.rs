//! A whole training run: set-up, epochs, metrics, checkpoints, and an end that loses nothing.

use super::answers::answers;
use super::clock::Phase;
use super::deadline::Deadline;
use super::destination::Destination;
use super::environment;
use super::evaluate::{Errors, Metrics, last_value};
use super::folder::Folder;
use super::noise::Noise;
use super::progress::{Position, load_weights};
use super::signal::StopFlag;
use super::stage::LocalData;
use super::terminal::{self, say, tell};
use super::trainer::Trainer;
use crate::comm::{Comm, agree, on_root, watch};
use crate::config::Job;
use crate::data::{Dataset, Input, Part};
use crate::error::{Error, Result};
use crate::store::{Answers, Best, RunFile, RunInfo, StepRow};
use std::path::PathBuf;
use std::time::Instant;

/// What the command line adds to a job.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Instead of `results/<name>`; a URL: the run is copied there too.
    pub out: Option<PathBuf>,
    /// Go on from the newest good checkpoint.
    pub resume: bool,
    /// Weights to start from.
    pub init: Option<PathBuf>,
    /// Check and print everything, train nothing.
    pub dry_run: bool,
    /// Stop with a checkpoint after so many hours.
    pub max_hours: Option<f64>,
}

/// The commit this program was built from, or nothing.
pub const COMMIT: &str = env!("SOURCE_COMMIT");

/// Trains `job` on the ranks of `comm`.
///
/// # Errors
/// The same on every rank; whatever was saved before stays whole.
pub fn train(job: &Job, options: &Options, comm: &dyn Comm) -> Result<()> {
    let (root, stop) = (comm.rank() == 0, StopFlag::listen());
    let deadline = Deadline::of(options.max_hours);
    watch::configure(job.distributed.report_seconds, job.distributed.timeout_seconds);
    watch::starting();
    let place = Destination::of(options.out.as_deref(), job, root && !terminal::is_quiet())?;
    place.look(options.resume, comm)?;
    let local = LocalData::stage(&job.data, comm)?;
    let mut data = agree(comm, Dataset::open_unread(&local.config, job.seed))?;
    let mut trainer = Trainer::build(job, &data, comm)?;
    let job = &trainer.settled(job);
    trainer.share(&mut data)?;
    let config = agree(comm, job.resolved())?;
    let batch = job.train.global_batch(comm.size());
    let out = place.folder.clone();
    if let Some(init) = &options.init {
        load_weights(&mut trainer, init)?;
    }
    let (checkpoints, mut folder) = (out.join("checkpoints"), None);
    if !options.dry_run {
        on_root(comm, || Folder::take(&out, job, options.init.as_deref()).map(|taken| folder = Some(taken)))?;
        place.prepare(options.resume, &config, folder.as_ref(), comm)?;
    }
    let resumed = if options.resume { trainer.resume(&checkpoints, &config)? } else { None };
    if let Some(at) = &resumed {
        watch::step(at.position.step);
        watch::resumable();
    }
    let samples = data.len(Part::Train) as u64;
    if let Some(at) = resumed.as_ref().filter(|at| at.position.sample > samples) {
        let what =
            format!("the newest one stands at sample {} of an epoch, the data has {samples}", at.position.sample);
        return Err(Error::usage(checkpoints.display().to_string(), what, "set data back, or use another --out"));
    }
    if root {
        tell(&terminal::model_table(&trainer.model.rows()));
        tell("");
        tell(&terminal::plan(&trainer, &data, batch, job.train.epochs));
        if let Some(text) = super::precision::told(job.train.precision, trainer.precision) {
            tell(&format!("bf16   {text}"));
        }
        if job.train.max_steps > 0 {
            tell(&format!("limit  ends after {} steps (train.max_steps)", job.train.max_steps));
        }
        if let Some(deadline) = &deadline {
            tell(&format!("limit  {deadline}"));
        }
        for note in data.notes() {
            tell(&format!("note   {note}"));
        }
        if batch > data.len(Part::Train) {
            let (batch, all) = (terminal::thousands(batch as u64), terminal::thousands(samples));
            tell(&format!(
                "note   a batch of {batch} is more than the {all} training samples: each step takes them all"
            ));
        }
    }
    if options.dry_run {
        if root {
            say("dry run: everything fits; nothing was trained");
        }
        return Ok(());
    }
    let mut environment = environment::describe(comm);
    environment.push(("products".to_owned(), trainer.precision.name().to_owned()));
    let info =
        RunInfo { name: &job.name, config: &config, ranks: comm.size(), commit: COMMIT, environment: &environment };
    let mut run = None;
    on_root(comm, || {
        // Without a checkpoint there is nothing to go on from, and the run starts anew.
        if let (None, Some(folder)) = (&resumed, &folder) {
            folder.move_earlier_run_aside()?;
        }
        let path = out.join("run.h5");
        run = Some(match &resumed {
            Some(at) => RunFile::resume(&path, &info, at.position.epoch, at.position.step)?,
            None => RunFile::create(&path, &info)?,
        });
        Ok(())
    })?;
    if let (true, Some(resumed)) = (root, &resumed) {
        let at = &resumed.position;
        tell(&format!("resuming after epoch {}, step {}, sample {} of the next epoch", at.epoch, at.step, at.sample));
        for change in &resumed.changes {
            tell(&format!("note   {change} from here on"));
        }
    }
    stop.listen_to_interrupts();
    let mut session = Session {
        job,
        data: &data,
        comm,
        trainer,
        run,
        config,
        input: data.description(),
        out,
        batch,
        at: resumed.map(|at| at.position).unwrap_or_default(),
        order: vec![0; data.len(Part::Train)],
        steps: Vec::new(),
        totals: vec![0.0; Phase::ALL.len()],
        noise: Vec::new(),
        shown: Instant::now(),
        stop,
        deadline,
    };
    if root {
        tell("");
    }
    let ended = session.run();
    place.copy(session.end(ended), comm)
}

/// A run that is set up.
pub(super) struct Session<'a> {
    pub(super) job: &'a Job,
    pub(super) data: &'a Dataset,
    pub(super) comm: &'a dyn Comm,
    pub(super) trainer: Trainer<'a>,
    /// On rank 0.
    pub(super) run: Option<RunFile>,
    pub(super) config: String,
    /// What a prediction must know beside the weights.
    pub(super) input: Input,
    pub(super) out: PathBuf,
    pub(super) batch: usize,
    pub(super) at: Position,
    pub(super) order: Vec<u32>,
    /// Rows not yet written.
    pub(super) steps: Vec<StepRow>,
    /// Seconds by phase so far.
    pub(super) totals: Vec<f64>,
    /// Of the gradients, by epoch.
    pub(super) noise: Vec<Noise>,
    /// When readers last saw something new.
    pub(super) shown: Instant,
    pub(super) stop: StopFlag,
    pub(super) deadline: Option<Deadline>,
}

impl Session<'_> {
    pub(super) fn root(&self) -> bool {
        self.comm.rank() == 0
    }

    fn run(&mut self) -> Result<Option<Metrics>> {
        self.baseline()?;
        let epochs = self.job.train.epochs;
        let mut last = None;
        if self.at.epoch >= epochs || self.limit_reached() || self.gave_up() {
            if self.root() {
                let what = match (self.limit_reached(), self.at.epoch >= epochs) {
                    (true, _) => "train.max_steps",
                    (_, true) => "train.epochs",
                    _ => "train.patience",
                };
                tell(&format!("{what} is reached already, at step {}; raise it to go on", self.at.step));
            }
            let measured = (self.data.len(Part::Test) > 0).then(|| self.trainer.evaluate(self.data, Part::Test));
            return measured.transpose();
        }
        while self.at.epoch < epochs && !self.limit_reached() && !self.gave_up() {
            last = self.epoch()?;
        }
        if self.root() && self.gave_up() && self.at.epoch < epochs {
            let Best { loss, epoch } = self.at.best;
            let waited = self.job.train.patience;
            tell(&format!(
                "ended early: {waited} epochs without a lower validation loss than {loss:.4} after epoch {epoch} (checkpoints/best.h5)"
            ));
        }
        Ok(last)
    }

    /// Whether the validation loss has not fallen for as long as the job waits for it: the same on every rank, since the loss is.
    pub(super) fn gave_up(&self) -> bool {
        let patience = self.job.train.patience;
        patience > 0 && self.at.epoch >= self.at.best.epoch + patience
    }

    pub(super) fn limit_reached(&self) -> bool {
        let most = self.job.train.max_steps;
        most > 0 && self.at.step >= most
    }

    /// The naive forecast's figures beside the network's.
    fn baseline(&mut self) -> Result<()> {
        let Some(errors) = last_value(self.data, Part::Test) else { return Ok(()) };
        if self.root() {
            tell(&format!("naive forecast (last value stays): test {}", terminal::errors_text(&errors)));
        }
        let run = &mut self.run;
        on_root(self.comm, || match run {
            Some(run) => {
                let figures = errors.columns(Part::Test);
                run.baseline(
                    "last_value",
                    &figures.iter().map(|(name, figure)| (name.as_str(), *figure)).collect::<Vec<_>>(),
                );
                run.flush()
            }
            None => Ok(()),
        })
    }

    /// Closes the run file with how it ended, and tells where everything is.
    fn end(mut self, ended: Result<Option<Metrics>>) -> Result<()> {
        let answers = match &ended {
            Ok(Some(metrics)) => answers(self.data, metrics, self.comm),
            _ => Answers::default(),
        };
        let status = match &ended {
            Ok(_) => "done",
            Err(Error::Stopped { .. }) => "stopped",
            Err(Error::Diverged { .. }) => "diverged",
            Err(_) => "failed",
        };
        let totals = self.comm.gather_f64(&self.totals);
        let mut figures = match &ended {
            Ok(Some(metrics)) => metrics.columns(Part::Test),
            _ => Vec::new(),
        };
        if self.at.best.epoch > 0 {
            figures.push(("best_epoch".into(), self.at.best.epoch as f64));
            figures.push(("best_validation_loss".into(), self.at.best.loss));
        }
        let (run, steps) = (self.run.take(), std::mem::take(&mut self.steps));
        let closed = on_root(self.comm, || {
            let Some(mut run) = run else { return Ok(()) };
            run.steps(&steps);
            run.result(&figures.iter().map(|(name, figure)| (name.as_str(), *figure)).collect::<Vec<_>>());
            run.answers(answers);
            run.finish(status)
        });
        // The first error is the one that matters.
        let metrics = ended?;
        closed?;
        if self.root() {
            self.summary(metrics.as_ref(), &totals);
        }
        Ok(())
    }

    fn summary(&self, metrics: Option<&Metrics>, totals: &[f64]) {
        say("");
        if let Some((metrics, accuracy)) = metrics.and_then(|metrics| Some((metrics, metrics.accuracy()?))) {
            say(&format!(
                "test         accuracy {:.2} %, loss {:.4}, of {} samples\n",
                100.0 * accuracy,
                metrics.loss,
                metrics.samples
            ));
        }
        if let Some(errors) = metrics.and_then(|metrics| metrics.errors.as_ref()) {
            say(&forecast_table(errors, last_value(self.data, Part::Test).as_ref()));
            say("");
        }
        let rows: Vec<Vec<f64>> = totals.chunks(Phase::ALL.len()).map(<[f64]>::to_vec).collect();
        say(&terminal::timing_table(&rows));
        say("");
        if let Some(scale) = Noise::of_last(&self.noise).scale() {
            say(&format!("noise scale  {}", terminal::noise_text(scale, self.batch)));
        }
        say(&format!("metrics      {}", self.out.join("run.h5").display()));
        say(&format!("checkpoints  {}", self.out.join("checkpoints").display()));
    }
}

/// The network's errors beside the naive forecast's.
pub fn forecast_table(errors: &Errors, naive: Option<&Errors>) -> String {
    let mut table = terminal::table(&["test, in the data's units", "MSE", "MAE", "RMSE", "MAPE %", "R²"], 1);
    for (name, errors) in [("network", Some(errors)), ("last value stays (naive)", naive)] {
        let Some(errors) = errors else { continue };
        let figures = errors.columns(Part::Test).map(|(_, figure)| format!("{figure:.4}"));
        table.add_row(std::iter::once(name.to_owned()).chain(figures));
    }
    table.to_string()
}
