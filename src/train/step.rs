//! The life of one mini-batch.

use super::clock::{Clock, Phase};
use crate::arena::Buffer;
use crate::comm::{Comm, overlapped};
use crate::config::Job;
use crate::data::shard::{micro_batches, own};
use crate::data::{AugmentKey, Dataset, Part, Targets, Task};
use crate::error::{Error, Result};
use crate::layer::Mode;
use crate::loss::{self, Loss};
use crate::model::Model;
use crate::optimizer::{self, Optimizer, Schedule, Update};
use crate::resource::require_memory;

/// What rides behind the gradient through the same sum over ranks: loss, correct answers, ranks that got a signal.
const EXTRAS: usize = 16;
const LOSS: usize = 0;
const CORRECT: usize = 1;
const SIGNALLED: usize = 2;

/// Everything a rank needs to train: the model, its parameters and what updates them.
pub struct Trainer<'c> {
    pub(super) comm: &'c dyn Comm,
    pub(super) model: Model<f32>,
    pub(super) loss: Box<dyn Loss>,
    pub(super) optimizer: Box<dyn Optimizer>,
    pub(super) schedule: Schedule,
    /// The parameters.
    pub params: Buffer<f32>,
    /// The state buffers.
    pub state: Buffer<f32>,
    /// The optimizer's moments, one buffer a slot.
    pub moments: Vec<Buffer<f32>>,
    /// The gradient, then the step's statistics, then the extras.
    gradient: Buffer<f32>,
    pub(super) targets: Targets,
    seed: u64,
    augment: bool,
    pub(super) micro: usize,
    pub(super) outputs: usize,
    pub(super) classes: bool,
    clip_norm: Option<f64>,
    /// Bucket elements when sums overlap the backward pass.
    bucket: Option<usize>,
    /// Where the time goes.
    pub clock: Clock,
}

/// What one step gave, the same on every rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Mean loss of the global batch, before the update.
    pub loss: f64,
    /// Right answers in the global batch; 0 for values.
    pub correct: f64,
    /// L2 norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub lr: f64,
    /// Whether some rank was asked to stop.
    pub signalled: bool,
}

impl<'c> Trainer<'c> {
    /// Builds the job's model, loss, optimizer and schedule for `data`, with fresh weights.
    ///
    /// # Errors
    /// Whatever of the job does not fit, by key.
    pub fn build(job: &Job, data: &Dataset, comm: &'c dyn Comm) -> Result<Self> {
        let (ranks, micro) = (comm.size(), job.train.micro_batch());
        let batch = job.train.global_batch(ranks);
        let parts = batch.div_ceil(micro);
        if ranks > parts {
            let what = format!(
                "{ranks} ranks, but a batch of {batch} has only {parts} micro-batches of {micro}, so {} would idle",
                ranks - parts
            );
            let mend = if batch >= ranks {
                format!("set train.micro_batch to at most {}, or start {parts} ranks", batch / ranks)
            } else {
                format!("start at most {batch} ranks, or raise train.batch_size")
            };
            return Err(Error::usage(format!("{}, train.micro_batch", job.file), what, mend));
        }
        if data.len(Part::Train) == 0 {
            return Err(job.data.source.error(
                "path",
                "has no training samples",
                "give a data set with a training part",
            ));
        }
        let model = Model::<f32>::with_precision(job.train.precision, &job.layers, data.input(), micro)?;
        let outputs = model.stack.output().len();
        let loss = loss::build(&job.loss, data.task(), outputs)?;
        let optimizer = optimizer::build(&job.optimizer)?;
        let steps_per_epoch = data.len(Part::Train).div_ceil(batch) as u64;
        let total = steps_per_epoch * job.train.epochs;
        let schedule = Schedule::build(&job.schedule, optimizer.lr(), batch, steps_per_epoch, total)?;
        let (len, state_len) = (model.layout().len(), model.state_layout().len());
        let copies = 2 + optimizer.slots().len();
        let elements = copies * len + state_len + model.stack.workspace_len();
        let mend = "use smaller layers, or an optimizer with fewer moments such as sgd";
        require_memory(&format!("{}, model.layers", job.file), 4.0 * elements as f64, mend)?;
        let (mut params, mut state) = (Buffer::zeros(len), Buffer::zeros(state_len));
        model.initialise(job.seed, &mut params, &mut state);
        Ok(Self {
            comm,
            loss,
            schedule,
            params,
            state,
            moments: optimizer.slots().iter().map(|_| Buffer::zeros(len)).collect(),
            gradient: Buffer::zeros(len + state_len + EXTRAS),
            targets: Targets::default(),
            seed: job.seed,
            augment: !job.data.augment.is_empty(),
            micro,
            outputs,
            classes: matches!(data.task(), Task::Classes(_)),
            clip_norm: job.train.clip_norm,
            bucket: (job.distributed.overlap && ranks > 1).then(|| job.distributed.bucket_len()),
            clock: Clock::start(),
            optimizer,
            model,
        })
    }

    /// One step on the global batch `samples` of epoch `epoch`; `step` counts from 0. Allocates nothing once warm.
    ///
    /// # Errors
    /// `Diverged`, on every rank, before anything is updated.
    pub fn step(&mut self, data: &Dataset, samples: &[u32], epoch: u64, step: u64, signalled: bool) -> Result<Outcome> {
        self.clock.skip();
        self.model.stack.prepare(&self.params);
        self.clock.lap(Phase::Forward);
        let parts = samples.len().div_ceil(self.micro);
        let mine = own(parts, self.comm.rank(), self.comm.size());
        let augment = self.augment.then_some(AugmentKey { seed: self.seed, epoch });
        let (mut loss, mut correct) = (0.0, 0);
        for (index, part) in micro_batches(samples.len(), self.micro).enumerate() {
            if !mine.contains(&index) {
                continue;
            }
            // 1, 2: my samples and their targets.
            let (m, first) = (part.len(), part.start as u64);
            data.fill(Part::Train, &samples[part], augment, self.model.stack.x(m), &mut self.targets);
            self.clock.lap(Phase::Data);
            // 3: forward. 4: loss and its gradient.
            let mode = Mode::Train { seed: self.seed, step, first, share: m as f64 / samples.len() as f64 };
            let (_, rest) = self.gradient.split_at_mut(self.params.len());
            self.model.stack.forward(m, mode, &self.params, &self.state, rest);
            let (y, dy) = self.model.stack.y_and_dy(m);
            let share = 1.0 / samples.len() as f64;
            loss += self.loss.evaluate(m, self.outputs, y, &self.targets, share, Some(dy));
            if self.classes {
                correct += loss::correct(m, self.outputs, y, &self.targets);
            }
            self.clock.lap(Phase::Forward);
            // 5: backward; the last one hands finished parts of the gradient to the sum over ranks.
            self.backward(m, mode, index + 1 == mine.end);
            self.clock.lap(Phase::Backward);
        }
        // 6: sums over ranks.
        let (lr, ranks_signalled) = (self.schedule.rate(step), if signalled { 1.0 } else { 0.0 });
        let extras = self.gradient.len() - EXTRAS;
        self.gradient[extras + LOSS] = loss as f32;
        self.gradient[extras + CORRECT] = correct as f32;
        self.gradient[extras + SIGNALLED] = ranks_signalled;
        self.reduce(mine.is_empty());
        let outcome = Outcome {
            loss: f64::from(self.gradient[extras + LOSS]),
            correct: f64::from(self.gradient[extras + CORRECT]),
            grad_norm: optimizer::norm(&self.gradient[..self.params.len()]),
            lr,
            signalled: self.gradient[extras + SIGNALLED] > 0.0,
        };
        self.clock.lap(Phase::Communication);
        if !outcome.loss.is_finite() || !outcome.grad_norm.is_finite() {
            let bad = if outcome.loss.is_finite() { outcome.grad_norm } else { outcome.loss };
            return Err(Error::Diverged { step: step + 1, loss: bad.to_string() });
        }
        // 7: the update.
        self.update(lr, step, outcome.grad_norm);
        self.clock.lap(Phase::Optimizer);
        Ok(outcome)
    }

    fn backward(&mut self, m: usize, mode: Mode, last: bool) {
        let gradient = &mut self.gradient[..self.params.len()];
        let stack = &mut self.model.stack;
        match self.bucket {
            Some(bucket) if last => overlapped(self.comm, |reduce| {
                stack.backward(m, mode, &self.params, gradient, false, bucket, reduce);
            }),
            _ => stack.backward(m, mode, &self.params, gradient, false, usize::MAX, &mut |_| {}),
        }
    }

    /// Sums what backward has not summed yet. With overlap every rank must start the same sums in the same order, so a
    /// rank without a micro-batch runs through the buckets of its zero gradient.
    fn reduce(&mut self, idle: bool) {
        let len = self.params.len();
        match self.bucket {
            None => self.comm.sum_f32(&mut self.gradient),
            Some(bucket) => {
                if idle {
                    let (gradient, stack) = (&mut self.gradient[..len], &self.model.stack);
                    overlapped(self.comm, |reduce| stack.hand_over(gradient, bucket, reduce));
                }
                self.comm.sum_f32(&mut self.gradient[len..]);
            }
        }
    }

    fn update(&mut self, lr: f64, step: u64, grad_norm: f64) {
        let clip = self.clip_norm.map_or(1.0, |most| (most / grad_norm).min(1.0));
        let (grads, rest) = self.gradient.split_at_mut(self.params.len());
        self.optimizer.update(Update {
            layout: self.model.layout(),
            params: &mut self.params,
            grads,
            moments: &mut self.moments,
            lr: lr as f32,
            step: step + 1,
            grad_scale: clip as f32,
        });
        let statistics = &mut rest[..self.state.len()];
        self.model.update_state(&mut self.state, statistics);
    }

    /// The model.
    pub fn model(&self) -> &Model<f32> {
        &self.model
    }

    /// Bytes of parameters, gradients, moments and workspace.
    pub fn memory(&self) -> usize {
        let moments: usize = self.moments.iter().map(|moment| moment.len()).sum();
        4 * (self.params.len() + self.state.len() + self.gradient.len() + moments + self.model.stack.workspace_len())
    }

    /// The names of the optimizer's moments.
    pub fn slots(&self) -> &'static [&'static str] {
        self.optimizer.slots()
    }
}
