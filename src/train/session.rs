//! A whole training run: set-up, epochs, metrics, checkpoints, and an end that loses nothing.

use super::clock::Phase;
use super::environment;
use super::evaluate::{Errors, Metrics, last_value};
use super::folder::Folder;
use super::noise::Noise;
use super::progress::{Position, load_weights};
use super::signal::StopFlag;
use super::stage::LocalData;
use super::step::Outcome;
use super::terminal::{self, EpochLine, Progress, say, tell};
use super::trainer::Trainer;
use crate::comm::{Comm, agree, on_root};
use crate::config::{Job, Precision};
use crate::data::{Dataset, Part};
use crate::error::{Error, Result};
use crate::kernel::bf16_is_native;
use crate::rng;
use crate::store::{self, RunFile, RunInfo, StepRow, checkpoint};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the command line adds to a job.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Instead of `results/<name>`.
    pub out: Option<PathBuf>,
    /// Go on from the newest good checkpoint.
    pub resume: bool,
    /// Weights to start from.
    pub init: Option<PathBuf>,
    /// Check and print everything, train nothing.
    pub dry_run: bool,
}

/// The commit this program was built from, or nothing.
pub const COMMIT: &str = env!("SOURCE_COMMIT");

/// Trains `job` on the ranks of `comm`.
///
/// # Errors
/// The same on every rank; whatever was saved before stays whole.
pub fn train(job: &Job, options: &Options, comm: &dyn Comm) -> Result<()> {
    let (root, stop) = (comm.rank() == 0, StopFlag::listen());
    let local = LocalData::stage(&job.data, comm)?;
    let mut data = agree(comm, Dataset::open_unread(&local.config, job.seed))?;
    let mut trainer = Trainer::build(job, &data, comm)?;
    trainer.share(&mut data)?;
    let config = agree(comm, job.resolved())?;
    let batch = job.train.global_batch(comm.size());
    let out = options.out.clone().unwrap_or_else(|| Path::new("results").join(&job.name));
    if let Some(init) = &options.init {
        load_weights(&mut trainer, init)?;
    }
    let (checkpoints, mut folder) = (out.join("checkpoints"), None);
    if !options.dry_run {
        on_root(comm, || Folder::take(&out, job, options.init.as_deref()).map(|taken| folder = Some(taken)))?;
    }
    let resumed = if options.resume { trainer.resume(&checkpoints, &config)? } else { None };
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
        if job.train.precision == Precision::Bf16 {
            let how = if bf16_is_native() { "by AVX-512 BF16" } else { "emulated on this CPU, which is slow" };
            tell(&format!("bf16   products of linear and lstm layers, {how}; weights and sums are f32"));
        }
        if job.train.max_steps > 0 {
            tell(&format!("limit  ends after {} steps (train.max_steps)", job.train.max_steps));
        }
        for note in data.notes() {
            tell(&format!("note   {note}"));
        }
    }
    if options.dry_run {
        if root {
            say("dry run: everything fits; nothing was trained");
        }
        return Ok(());
    }
    let environment = environment::describe(comm);
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
        out,
        batch,
        at: resumed.map(|at| at.position).unwrap_or_default(),
        order: vec![0; data.len(Part::Train)],
        steps: Vec::new(),
        totals: vec![0.0; Phase::ALL.len()],
        noise: None,
        shown: Instant::now(),
        stop,
    };
    if root {
        tell("");
    }
    let ended = session.run();
    session.end(ended)
}

/// How often the run file shows the steps of a long epoch.
const SHOW_EVERY: Duration = Duration::from_secs(5);

struct Session<'a> {
    job: &'a Job,
    data: &'a Dataset,
    comm: &'a dyn Comm,
    trainer: Trainer<'a>,
    /// On rank 0.
    run: Option<RunFile>,
    config: String,
    out: PathBuf,
    batch: usize,
    at: Position,
    order: Vec<u32>,
    /// Rows not yet written.
    steps: Vec<StepRow>,
    /// Seconds by phase so far.
    totals: Vec<f64>,
    /// The gradient noise scale of the last epoch.
    noise: Option<f64>,
    /// When readers last saw something new.
    shown: Instant,
    stop: StopFlag,
}

impl Session<'_> {
    fn root(&self) -> bool {
        self.comm.rank() == 0
    }

    fn run(&mut self) -> Result<Option<Metrics>> {
        self.baseline()?;
        let epochs = self.job.train.epochs;
        let mut last = None;
        if self.at.epoch >= epochs || self.limit_reached() {
            if self.root() {
                let what = if self.limit_reached() { "train.max_steps" } else { "train.epochs" };
                tell(&format!("{what} is reached already, at step {}; raise it to go on", self.at.step));
            }
            return Ok((self.data.len(Part::Test) > 0).then(|| self.trainer.evaluate(self.data, Part::Test)));
        }
        while self.at.epoch < epochs && !self.limit_reached() {
            last = self.epoch()?;
        }
        Ok(last)
    }

    fn limit_reached(&self) -> bool {
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
                run.baseline("last_value", &errors.columns());
                run.flush()
            }
            None => Ok(()),
        })
    }

    fn epoch(&mut self) -> Result<Option<Metrics>> {
        let (epoch, epochs, samples) = (self.at.epoch, self.job.train.epochs, self.order.len());
        if self.job.data.shuffle {
            rng::shuffle(self.job.seed, epoch, &mut self.order);
        } else {
            self.order.iter_mut().enumerate().for_each(|(i, slot)| *slot = i as u32);
        }
        let label = format!("epoch {}/{epochs}", epoch + 1);
        let mut progress = Progress::start(label, samples as u64, self.root());
        let (began, from) = (Instant::now(), self.at.sample);
        let mut paused = 0.0;
        // The last step's, should the run have stopped after all samples of the epoch.
        let mut lr = self.trainer.schedule.rate(self.at.step.saturating_sub(1));
        let order = std::mem::take(&mut self.order);
        self.steps.reserve(samples.div_ceil(self.batch));
        let mut result = Ok(());
        while (self.at.sample as usize) < samples && !self.limit_reached() {
            let first = self.at.sample as usize;
            let last = (first + self.batch).min(samples);
            match self.step(&order[first..last], &mut lr) {
                Ok(loss) => {
                    progress.update(last as u64, loss);
                    self.show_steps();
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            let every = self.job.train.checkpoint_steps;
            if every > 0 && self.at.step.is_multiple_of(every) && last < samples {
                let pause = Instant::now();
                result = self.checkpoint().map(|_| ());
                paused += pause.elapsed().as_secs_f64();
                if result.is_err() {
                    break;
                }
            }
        }
        self.order = order;
        progress.finish();
        result?;
        let seconds = began.elapsed().as_secs_f64() - paused;
        self.finish_epoch(seconds, (self.at.sample - from) as f64 / seconds, lr)
    }

    fn step(&mut self, samples: &[u32], lr: &mut f64) -> Result<f64> {
        let stop = self.stop.is_set();
        let outcome = self.trainer.step(self.data, samples, self.at.epoch, self.at.step, stop)?;
        self.at.step += 1;
        let every = self.job.distributed.check_steps;
        if every > 0 && self.at.step.is_multiple_of(every) && self.job.distributed.average_every == 1 {
            self.trainer.compare_hosts(self.at.step)?;
        }
        self.at.sample += samples.len() as u64;
        let sums = &mut self.at.sums;
        sums.loss += outcome.loss * samples.len() as f64;
        sums.correct += outcome.correct;
        sums.noise_spread += outcome.noise.spread;
        sums.noise_signal += outcome.noise.signal;
        *lr = outcome.lr;
        let Outcome { loss, grad_norm, .. } = outcome;
        self.steps.push(StepRow { step: self.at.step, loss, lr: outcome.lr, grad_norm });
        if outcome.signalled {
            let checkpoint = self.checkpoint()?.display().to_string();
            return Err(Error::Stopped { step: self.at.step, checkpoint });
        }
        Ok(outcome.loss)
    }

    /// Lets readers of the run file see a long epoch's steps. A failure waits for the epoch's end, where all ranks learn of it.
    fn show_steps(&mut self) {
        let Some(run) = self.run.as_mut().filter(|_| self.shown.elapsed() > SHOW_EVERY) else { return };
        run.steps(&self.steps);
        self.steps.clear();
        if let Err(error) = run.flush() {
            log::warn!("{error}; it is tried again");
        }
        self.shown = Instant::now();
    }

    fn finish_epoch(&mut self, seconds: f64, rate: f64, lr: f64) -> Result<Option<Metrics>> {
        let (train, epoch, seen) = (&self.job.train, self.at.epoch + 1, self.at.sample as f64);
        let sums = self.at.sums;
        self.noise = Noise { spread: sums.noise_spread, signal: sums.noise_signal }.scale();
        let (loss, correct) = (sums.loss / seen, sums.correct / seen);
        // An epoch cut short by max_steps stays open: with a higher limit the run goes on inside it.
        if self.at.sample as usize == self.order.len() {
            self.at = Position { step: self.at.step, epoch, ..Position::default() };
        }
        let last = epoch == train.epochs || self.limit_reached();
        let due = |every: u64| last || (every > 0 && epoch.is_multiple_of(every));
        let (evaluate, save) = (due(train.evaluate_every), due(train.checkpoint_every));
        let test = (evaluate && self.data.len(Part::Test) > 0).then(|| {
            self.trainer.average();
            self.trainer.clock.skip();
            let metrics = self.trainer.evaluate(self.data, Part::Test);
            self.trainer.clock.lap(Phase::Evaluation);
            metrics
        });
        let accuracy = self.trainer.goal.classes.then_some(correct);
        let mut row = vec![("epoch", epoch as f64), ("train_loss", loss)];
        row.extend(accuracy.map(|accuracy| ("train_accuracy", accuracy)));
        row.extend(test.iter().flat_map(Metrics::columns));
        row.extend(self.noise.map(|scale| ("noise_scale", scale)));
        row.extend([("lr", lr), ("seconds", seconds), ("samples_per_second", rate)]);
        let run = &mut self.run;
        on_root(self.comm, || run.as_mut().map_or(Ok(()), |run| run.epoch(&row)))?;
        if save {
            self.checkpoint()?;
        }
        self.write_times()?;
        self.shown = Instant::now();
        if self.root() {
            let line = EpochLine {
                epoch,
                epochs: train.epochs,
                loss,
                accuracy,
                test: test.as_ref(),
                seconds,
                samples_per_second: rate,
            };
            tell(&line.text());
        }
        Ok(test)
    }

    /// The epoch's times, and all rows so far, flushed.
    fn write_times(&mut self) -> Result<()> {
        let mine = self.trainer.clock.take();
        for (total, seconds) in self.totals.iter_mut().zip(mine) {
            *total += seconds;
        }
        let all = self.comm.gather_f64(&mine);
        let columns: Vec<Vec<f64>> = (0..Phase::ALL.len())
            .map(|phase| all.iter().skip(phase).step_by(Phase::ALL.len()).copied().collect())
            .collect();
        let phases: Vec<(&str, &[f64])> =
            Phase::ALL.iter().map(|(phase, name)| (*name, &columns[*phase as usize][..])).collect();
        let (run, steps) = (&mut self.run, &mut self.steps);
        on_root(self.comm, || {
            let Some(run) = run else { return Ok(()) };
            run.steps(steps);
            run.timing(&phases);
            run.flush()
        })?;
        self.steps.clear();
        Ok(())
    }

    /// Saves everything; the path on every rank. The rows so far are flushed first: whoever goes on from a checkpoint finds
    /// every row up to it, and later ones are dropped.
    fn checkpoint(&mut self) -> Result<PathBuf> {
        self.trainer.average();
        self.trainer.compare_hosts(self.at.step)?;
        self.trainer.clock.skip();
        let dir = self.out.join("checkpoints");
        let progress = store::Progress {
            step: self.at.step,
            epoch: self.at.epoch,
            sample: self.at.sample,
            sums: self.at.sums,
            seed: self.job.seed,
            ranks: self.comm.size() as u64,
            config: &self.config,
        };
        let (trainer, keep) = (&self.trainer, self.job.train.keep_checkpoints);
        let (run, steps) = (&mut self.run, std::mem::take(&mut self.steps));
        let mut path = dir.join(format!("step-{:08}.h5", self.at.step));
        on_root(self.comm, || {
            if let Some(run) = run {
                run.steps(&steps);
                run.sync()?;
            }
            let moments = trainer.replica.moments.iter().map(|moment| &moment[..]);
            let slots: Vec<(&str, &[f32])> = trainer.slots().iter().copied().zip(moments).collect();
            let params = (trainer.model.layout(), &trainer.replica.params[..]);
            let state = (trainer.model.state_layout(), &trainer.replica.state[..]);
            path = checkpoint::write(&dir, &progress, params, state, &slots)?;
            checkpoint::prune(&dir, keep)
        })?;
        self.trainer.clock.lap(Phase::Checkpoint);
        Ok(path)
    }

    /// Closes the run file with how it ended, and tells where everything is.
    fn end(mut self, ended: Result<Option<Metrics>>) -> Result<()> {
        let status = match &ended {
            Ok(_) => "done",
            Err(Error::Stopped { .. }) => "stopped",
            Err(Error::Diverged { .. }) => "diverged",
            Err(_) => "failed",
        };
        let totals = self.comm.gather_f64(&self.totals);
        let figures: Vec<(&str, f64)> = match &ended {
            Ok(Some(metrics)) => metrics.columns(),
            _ => Vec::new(),
        };
        let (run, steps) = (self.run.take(), std::mem::take(&mut self.steps));
        let closed = on_root(self.comm, || {
            let Some(mut run) = run else { return Ok(()) };
            run.steps(&steps);
            run.result(&figures);
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
        if let Some(errors) = metrics.and_then(|metrics| metrics.errors.as_ref()) {
            say(&forecast_table(errors, last_value(self.data, Part::Test).as_ref()));
            say("");
        }
        let rows: Vec<Vec<f64>> = totals.chunks(Phase::ALL.len()).map(<[f64]>::to_vec).collect();
        say(&terminal::timing_table(&rows));
        say("");
        if let Some(scale) = self.noise {
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
        let figures = errors.columns().map(|(_, figure)| format!("{figure:.4}"));
        table.add_row(std::iter::once(name.to_owned()).chain(figures));
    }
    table.to_string()
}
