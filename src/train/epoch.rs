//! An epoch of a run: its steps, what is measured at its end, and what is saved.

use super::clock::Phase;
use super::deadline::Deadline;
use super::evaluate::Metrics;
use super::noise::Noise;
use super::progress::Position;
use super::session::Session;
use super::step::Outcome;
use super::terminal::{EpochLine, Progress, tell};
use crate::comm::{on_root, watch};
use crate::data::{Batch, Part};
use crate::error::{Error, Result};
use crate::store::{self, Best, StepRow, checkpoint};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the run file shows the steps of a long epoch.
const SHOW_EVERY: Duration = Duration::from_secs(5);

impl Session<'_> {
    /// One epoch, or what is left of it.
    pub(super) fn epoch(&mut self) -> Result<Option<Metrics>> {
        let (epoch, epochs, samples) = (self.at.epoch, self.job.train.epochs, self.order.len());
        self.data.order(self.job.seed, epoch, &mut self.order);
        let label = format!("epoch {}/{epochs}", epoch + 1);
        let mut progress = Progress::start(label, samples as u64, self.root());
        let (began, from) = (Instant::now(), self.at.sample);
        let mut paused = 0.0;
        // The last step's, should the run have stopped after all samples of the epoch.
        let mut lr = self.trainer.schedule.rate(self.at.step.saturating_sub(1));
        let order = std::mem::take(&mut self.order);
        self.steps.reserve(samples.div_ceil(self.batch));
        let mut result = Ok(());
        let mut loader = self.trainer.loader(self.data, &order[from as usize..], self.batch, self.at.step);
        while !self.limit_reached()
            && let Some(batch) = self.trainer.next(&mut loader)
        {
            match batch.and_then(|batch| self.step(batch, &mut lr)) {
                Ok(loss) => {
                    progress.update(self.at.sample, loss);
                    self.show_steps();
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            let every = self.job.train.checkpoint_steps;
            if every > 0 && self.at.step.is_multiple_of(every) && (self.at.sample as usize) < samples {
                let pause = Instant::now();
                result = self.checkpoint().map(|_| ());
                paused += pause.elapsed().as_secs_f64();
                if result.is_err() {
                    break;
                }
            }
        }
        drop(loader);
        self.order = order;
        progress.finish();
        result?;
        let seconds = began.elapsed().as_secs_f64() - paused;
        self.finish_epoch(seconds, (self.at.sample - from) as f64 / seconds, lr)
    }

    fn step(&mut self, batch: Batch, lr: &mut f64) -> Result<f64> {
        let late = self.deadline.as_ref().is_some_and(Deadline::has_passed);
        let (stop, samples) = (late || self.stop.is_set(), batch.samples);
        let outcome = self.trainer.step(self.data, batch, self.at.epoch, self.at.step, stop)?;
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
        let noise = Noise { spread: sums.noise_spread, signal: sums.noise_signal };
        self.noise.push(noise);
        let (loss, correct) = (sums.loss / seen, sums.correct / seen);
        // An epoch cut short by max_steps stays open: with a higher limit the run goes on inside it.
        if self.at.sample as usize == self.order.len() {
            self.at = Position { step: self.at.step, epoch, best: self.at.best, ..Position::default() };
        }
        let validation = self.measure(Part::Validation)?;
        let improved = validation.as_ref().is_some_and(|metrics| metrics.loss < self.at.best.loss);
        if let (Some(metrics), true) = (&validation, improved) {
            self.at.best = Best { loss: metrics.loss, epoch };
        }
        let last = epoch == train.epochs || self.limit_reached() || self.gave_up();
        let due = |every: u64| last || (every > 0 && epoch.is_multiple_of(every));
        let (evaluate, save) = (due(train.evaluate_every), improved || due(train.checkpoint_every));
        let test = if evaluate { self.measure(Part::Test)? } else { None };
        let accuracy = self.trainer.goal.classes.then_some(correct);
        let measured = [(Part::Validation, &validation), (Part::Test, &test)];
        let measured: Vec<_> =
            measured.into_iter().flat_map(|(part, of)| of.iter().flat_map(move |of| of.columns(part))).collect();
        let mut row = vec![("epoch", epoch as f64), ("train_loss", loss)];
        row.extend(accuracy.map(|accuracy| ("train_accuracy", accuracy)));
        row.extend(measured.iter().map(|(name, figure)| (name.as_str(), *figure)));
        row.extend(noise.scale().map(|scale| ("noise_scale", scale)));
        row.extend([("lr", lr), ("seconds", seconds), ("samples_per_second", rate)]);
        let run = &mut self.run;
        on_root(self.comm, || run.as_mut().map_or(Ok(()), |run| run.epoch(&row)))?;
        if save {
            let path = self.checkpoint()?;
            on_root(self.comm, || if improved { checkpoint::keep_best(&path) } else { Ok(()) })?;
        }
        self.write_times()?;
        self.shown = Instant::now();
        if self.root() {
            let line = EpochLine {
                epoch,
                epochs: train.epochs,
                loss,
                accuracy,
                validation: validation.as_ref(),
                test: test.as_ref(),
                seconds,
                samples_per_second: rate,
            };
            tell(&line.text());
        }
        Ok(test)
    }

    /// Metrics of a part, if it has samples. Errors: they cannot be read any more; on every rank.
    fn measure(&mut self, part: Part) -> Result<Option<Metrics>> {
        if self.data.len(part) == 0 {
            return Ok(None);
        }
        self.trainer.average();
        self.trainer.clock.enter(Phase::Evaluation);
        let metrics = self.trainer.evaluate(self.data, part);
        self.trainer.clock.leave();
        metrics.map(Some)
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
        self.trainer.clock.enter(Phase::Checkpoint);
        let dir = self.out.join("checkpoints");
        let progress = store::Progress {
            step: self.at.step,
            epoch: self.at.epoch,
            sample: self.at.sample,
            sums: self.at.sums,
            best: self.at.best,
            input: &self.input,
            seed: self.job.seed,
            ranks: self.comm.size() as u64,
            config: &self.config,
            products: self.trainer.precision.name(),
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
        self.trainer.clock.leave();
        watch::resumable();
        Ok(path)
    }
}
