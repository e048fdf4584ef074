//! The life of one mini-batch.

use super::clock::Phase;
use super::mixing::Mixing;
use super::noise::Noise;
use super::trainer::{Goal, Trainer, over};
use crate::comm::{Comm, overlapped, watch};
use crate::data::{AugmentKey, Batch, Dataset, Part, Targets};
use crate::error::{Error, Result};
use crate::kernel::sum::squares;
use crate::layer::{Mode, Onto, Pass, Stack};
use crate::loss;
use crate::shard::micro_batches;
use std::ops::Range;
use std::time::{Duration, Instant};

/// What rides behind the gradient through the same sum over ranks: loss, correct answers, ranks that got a signal, Σ v² of
/// the first micro-batch's gradient, and the mean of the hosts' squared norms where they make steps of their own.
pub(super) const EXTRAS: usize = 16;
pub(super) const LOSS: usize = 0;
const CORRECT: usize = 1;
const SIGNALLED: usize = 2;
const FIRST_SQUARES: usize = 3;
pub(super) const NORM: usize = 4;

/// Steps from one look at the first micro-batch's gradient to the next: it costs a pass over a gradient, on one rank.
const NOISE_EVERY: u64 = 4;

/// Of the blocks that are summed and updated, one of so many is timed to tell the one from the other.
const TIMED: u32 = 32;

/// What one step gave, the same on every rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Mean loss of the global batch, before the update.
    pub loss: f64,
    /// Right answers in the global batch; 0 for values.
    pub correct: f64,
    /// L2 norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// From the gradients of the first micro-batch and of the batch, every few steps.
    pub noise: Noise,
    /// The learning rate used.
    pub lr: f64,
    /// Whether some rank was asked to stop.
    pub signalled: bool,
}

/// Where the first rank that saw a number that is not finite saw it, in words; on rank 0, which tells it.
fn first_of_all(comm: &dyn Comm, own: Option<(String, String)>) -> String {
    let own = own.map(|(key, kind)| match key.as_str() {
        "" => "in the input".to_owned(),
        _ => format!("behind layer {key} ({kind})"),
    });
    let all = comm.gather_bytes(own.unwrap_or_default().as_bytes());
    let seen = all.iter().enumerate().find(|(_, place)| !place.is_empty());
    seen.map_or(String::new(), |(rank, place)| format!(" (first {} on rank {rank})", String::from_utf8_lossy(place)))
}

impl Outcome {
    /// Whether everything is a number.
    fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.grad_norm.is_finite()
    }
}

/// What a step works on: the global batch, and what becomes of it.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub data: &'a Dataset,
    pub batch: Batch<'a>,
    augment: Option<AugmentKey>,
    mixing: Option<&'a Mixing>,
    /// Of a sample's loss in the batch's.
    share: f64,
    seed: u64,
    step: u64,
    signalled: bool,
    /// Samples of a micro-batch.
    micro: usize,
}

/// One of its micro-batches.
pub(super) struct MicroBatch {
    pub index: usize,
    /// Where its samples stand in the batch.
    range: Range<usize>,
    pub mode: Mode,
}

impl MicroBatch {
    /// Samples in it.
    pub fn m(&self) -> usize {
        self.range.len()
    }
}

impl Work<'_> {
    /// Those that this rank computes.
    pub fn micro_batches(self, mine: Range<usize>) -> impl Iterator<Item = MicroBatch> {
        let share = 1.0 / self.batch.samples.len() as f64;
        let all = micro_batches(self.batch.samples.len(), self.micro).enumerate();
        all.skip(mine.start).take(mine.len()).map(move |(index, range)| {
            let (first, share) = (range.start as u64, range.len() as f64 * share);
            let mode = Mode::Train { seed: self.seed, step: self.step, first, share };
            MicroBatch { index, range, mode }
        })
    }

    /// 1, 2: the samples of a micro-batch and their targets.
    pub fn fill(self, micro: &MicroBatch, stack: &mut Stack<f32>, targets: &mut Targets) {
        self.data.fill(Part::Train, self.batch.pick(micro.range.clone()), self.augment, stack.x(micro.m()), targets);
        if let Some(mixing) = self.mixing {
            let first = micro.range.start;
            let others = self.batch.pick_others(first, mixing.others(first, micro.m()));
            self.data.mix(Part::Train, others, mixing.share(), self.augment, stack.x(micro.m()), targets);
        }
    }

    /// 4: the loss, its gradient, and what else rides behind the gradient.
    pub fn judge(self, goal: &Goal, m: usize, stack: &mut Stack<f32>, targets: &Targets, extras: &mut [f32]) {
        let (y, dy) = stack.y_and_dy(m);
        extras[LOSS] += goal.loss.evaluate(m, goal.outputs, y, targets, self.share, Some(dy)) as f32;
        if goal.classes {
            extras[CORRECT] += loss::correct(m, goal.outputs, y, targets) as f32;
        }
        extras[SIGNALLED] = if self.signalled { 1.0 } else { 0.0 };
    }
}

impl Trainer<'_> {
    /// One step on a global batch of epoch `epoch`, from a [`Loader`](crate::data::Loader) or, where samples are in memory,
    /// just their numbers; `step` counts from 0. Allocates nothing once warm.
    ///
    /// # Errors
    /// `Diverged`, on every rank; the weights are then of no more use.
    pub fn step<'b>(
        &mut self,
        data: &Dataset,
        batch: impl Into<Batch<'b>>,
        epoch: u64,
        step: u64,
        signalled: bool,
    ) -> Result<Outcome> {
        self.step_on(data, batch.into(), epoch, step, signalled)
    }

    fn step_on(&mut self, data: &Dataset, batch: Batch, epoch: u64, step: u64, signalled: bool) -> Result<Outcome> {
        let samples = batch.samples;
        watch::step(step + 1);
        self.clock.enter(Phase::Forward);
        let augment = self.augment.then_some(AugmentKey { seed: self.seed, epoch });
        let mut mixing = self.mixing.take();
        if let Some(mixing) = &mut mixing {
            mixing.draw(self.seed, step, samples);
        }
        let total = |samples: &[u32]| self.goal.total(data, Part::Train, samples.iter().copied());
        let share = over(1.0, total(samples));
        // The first micro-batch's gradient is its share of the batch's.
        let first = self.micro.min(samples.len());
        let first_scale = over(total(samples), total(&samples[..first]));
        let (seed, micro) = (self.seed, self.micro);
        let work = Work { data, batch, augment, mixing: mixing.as_ref(), share, seed, step, signalled, micro };
        let mine = self.exchange.begin(samples.len().div_ceil(self.micro));
        self.prepare();
        // 1 to 5: the gradients of my micro-batches.
        match self.together.is_some() {
            false => self.pass_one_by_one(work, mine.clone()),
            true => self.pass_together(work, mine.clone()),
        }
        self.mixing = mixing;
        self.clock.enter(Phase::Communication);
        // 6: sums over ranks, and 7 with them where the update need not wait for the norm of the whole.
        let done = self.finish_buckets(mine.is_empty());
        let (params, state) = (self.replica.params.len(), self.replica.state.len());
        let lr = self.schedule.rate(step);
        let at_once = self.local.is_none() && self.clip_norm.is_none() && !self.optimizer.whole_tensors();
        let norm = match self.local {
            Some(local) => self.sum_on_host(local, data, samples, state),
            None if at_once => self.sum_and_update(done, lr, step),
            None => self.exchange.sum(done, |_, _| {}).sqrt(),
        };
        let extras = &self.exchange.total()[params + state..];
        let first_squares = f64::from(extras[FIRST_SQUARES]) * first_scale * first_scale;
        let outcome = Outcome {
            loss: f64::from(extras[LOSS]),
            correct: f64::from(extras[CORRECT]),
            grad_norm: self.local.map_or(norm, |_| f64::from(extras[NORM]).sqrt()),
            noise: match first_squares {
                0.0 => Noise::default(),
                _ => Noise::of((first, first_squares), (samples.len(), norm * norm)),
            },
            lr,
            signalled: extras[SIGNALLED] > 0.0,
        };
        self.clock.enter(Phase::Optimizer);
        if !outcome.is_finite() {
            let bad = if outcome.loss.is_finite() { outcome.grad_norm } else { outcome.loss };
            let first = first_of_all(self.comm, self.not_finite.take());
            return Err(Error::Diverged { step: step + 1, loss: bad.to_string(), first });
        }
        // 7: the state, and the update if it waited.
        let state = self.replica.state_mut(self.exchange.host());
        self.model.update_state(state, &self.exchange.total()[params..]);
        if !at_once {
            let clip = self.clip_norm.map_or(1.0, |most| (most / norm).min(1.0));
            let scale = if self.local.is_some() { self.host_scale(data, samples) } else { 1.0 };
            let part = self.replica.part();
            let mut updating = self.replica.updating(
                &*self.optimizer,
                self.model.layout(),
                lr as f32,
                self.schedule.momentum(step),
                step + 1,
            );
            updating.update(part, self.exchange.part(), (clip * scale) as f32);
        }
        self.exchange.release();
        self.stray(step);
        self.clock.leave();
        Ok(outcome)
    }

    /// Forward and backward of one micro-batch after the other.
    fn pass_one_by_one(&mut self, work: Work, mine: Range<usize>) {
        let (params, state) = (&self.replica.params, &self.replica.state);
        for micro in work.micro_batches(mine.clone()) {
            let (m, stack) = (micro.m(), &mut self.model.stack);
            let on_its_way = Pass { m, mode: micro.mode, params };
            self.clock.enter(Phase::Data);
            work.fill(&micro, stack, &mut self.targets);
            self.clock.enter(Phase::Forward);
            // 3: forward.
            self.exchange.open(micro.index);
            let fresh = self.exchange.is_fresh(micro.index);
            let (leaf, elder) = self.exchange.leaf_and_elder(micro.index);
            let [gradient, statistics, extras] = split(leaf, params.len(), state.len());
            stack.forward(on_its_way, state, statistics);
            work.judge(&self.goal, m, stack, &self.targets, extras);
            if !extras[LOSS].is_finite() && self.not_finite.is_none() {
                self.not_finite = stack.first_not_finite(m);
            }
            self.clock.enter(Phase::Backward);
            // 5: backward; the last one hands finished parts of the gradient to the sum over ranks, if they overlap.
            let onto = match elder {
                Some(elder) => Onto::Beside(elder),
                None if fresh => Onto::Overwrite,
                None => Onto::Add,
            };
            match self.bucket {
                Some(bucket) if micro.index + 1 == mine.end => overlapped(self.comm, |reduce| {
                    stack.backward(on_its_way, gradient, onto, false, bucket, reduce);
                }),
                _ => stack.backward(on_its_way, gradient, onto, false, usize::MAX, &mut |_| {}),
            }
            // Nothing was added to it yet.
            let looked_at = self.measures_noise && micro.index == 0 && work.step.is_multiple_of(NOISE_EVERY);
            if looked_at && m < work.batch.samples.len() {
                extras[FIRST_SQUARES] = squares(gradient) as f32;
            }
            self.exchange.finish(micro.index);
        }
    }

    /// Packs weights for the passes to come.
    pub(super) fn prepare(&mut self) {
        self.model.stack.prepare(&self.replica.params);
        if let Some(together) = &mut self.together {
            together.prepare(&self.replica.params);
        }
    }

    /// With overlap every rank must start the same sums in the same order, so a rank without a micro-batch runs through the
    /// buckets of its zero gradient. Returns how many elements have been summed.
    fn finish_buckets(&mut self, idle: bool) -> usize {
        let Some(bucket) = self.bucket else { return 0 };
        let len = self.replica.params.len();
        if idle {
            let (leaf, stack) = (self.exchange.leaf(0), &self.model.stack);
            let gradient = &mut leaf[..len];
            gradient.fill(0.0);
            overlapped(self.comm, |reduce| stack.hand_over(gradient, bucket, reduce));
        }
        len
    }

    /// Sums over ranks, each of which updates what it has summed. Returns the gradient's norm.
    fn sum_and_update(&mut self, done: usize, lr: f64, step: u64) -> f64 {
        let mut updating = self.replica.updating(
            &*self.optimizer,
            self.model.layout(),
            lr as f32,
            self.schedule.momentum(step),
            step + 1,
        );
        let (mut calls, mut timed, mut time) = (0u32, 0, Duration::ZERO);
        let squares = self.exchange.sum(done, |range, grads| {
            calls += 1;
            if calls % TIMED == 2 {
                timed += 1;
                let began = Instant::now();
                updating.update(range, grads, 1.0);
                time += began.elapsed();
            } else {
                updating.update(range, grads, 1.0);
            }
        });
        self.clock.enter(Phase::Communication);
        let seconds = time.as_secs_f64() * f64::from(calls) / f64::from(timed.max(1));
        self.clock.shift(Phase::Communication, Phase::Optimizer, seconds);
        squares.sqrt()
    }
}

/// A leaf's gradient, statistics and extras.
pub(super) fn split(leaf: &mut [f32], params: usize, state: usize) -> [&mut [f32]; 3] {
    let (gradient, riders) = leaf.split_at_mut(params);
    let (statistics, extras) = riders.split_at_mut(state);
    [gradient, statistics, extras]
}
