//! The life of one mini-batch.

use super::clock::{Clock, Phase};
use super::replica::Replica;
use crate::comm::{Comm, agree, overlapped};
use crate::config::{Job, Reduction};
use crate::data::shard::micro_batches;
use crate::data::{AugmentKey, Dataset, Part, Targets, Task};
use crate::error::{Error, Result};
use crate::layer::Mode;
use crate::loss::{self, Loss};
use crate::model::Model;
use crate::optimizer::{self, Optimizer, Schedule, Update};
use crate::reduction::Exchange;
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
    /// Parameters, state and moments.
    pub replica: Replica,
    /// Of micro-batches: the gradient, then the step's statistics, then the extras.
    pub(super) exchange: Exchange,
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

/// What a job says a trainer is made of, found fitting.
struct Design {
    model: Model<f32>,
    loss: Box<dyn Loss>,
    optimizer: Box<dyn Optimizer>,
    schedule: Schedule,
    /// Micro-batches of a step, at most.
    parts: usize,
    /// Memory that ranks of a host share, if they do.
    shared_bytes: usize,
}

impl Design {
    fn of(job: &Job, data: &Dataset, ranks: usize) -> Result<Self> {
        let (batch, micro) = (job.train.global_batch(ranks), job.train.micro_batch());
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
        let samples = data.len(Part::Train);
        if samples == 0 {
            let mend = "give a data set with a training part";
            return Err(job.data.source.error("path", "has no training samples", mend));
        }
        let model = Model::<f32>::with_precision(job.train.precision, &job.layers, data.input(), micro)?;
        let loss = loss::build(&job.loss, data.task(), model.stack.output().len())?;
        let optimizer = optimizer::build(&job.optimizer)?;
        let steps_per_epoch = samples.div_ceil(batch) as u64;
        let total = steps_per_epoch * job.train.epochs;
        let schedule = Schedule::build(&job.schedule, optimizer.lr(), batch, steps_per_epoch, total)?;
        let parts = parts.min(samples.div_ceil(micro));
        let (len, state_len) = (model.layout().len(), model.state_layout().len());
        let reproducible = job.distributed.reduction == Reduction::Reproducible;
        let gradients = Exchange::elements_for(reproducible, parts, ranks, len + state_len + EXTRAS);
        let copies = 1 + optimizer.slots().len();
        let elements = copies * len + state_len + gradients + model.stack.workspace_len();
        let mend = "use smaller layers, or an optimizer with fewer moments such as sgd";
        require_memory(&format!("{}, model.layers", job.file), 4.0 * elements as f64, mend)?;
        let shared_bytes = 4 * (copies * len + state_len + gradients);
        Ok(Self { model, loss, optimizer, schedule, parts, shared_bytes })
    }
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
    /// Builds the job's model, loss, optimizer and schedule for `data`, with fresh weights. Collective.
    ///
    /// # Errors
    /// Whatever of the job does not fit, by key; on every rank.
    pub fn build(job: &Job, data: &Dataset, comm: &'c dyn Comm) -> Result<Self> {
        let Design { model, loss, optimizer, schedule, parts, shared_bytes } =
            agree(comm, Design::of(job, data, comm.size()))?;
        let host = comm.host(job.distributed.shares_memory().then_some(shared_bytes))?;
        let (len, state_len) = (model.layout().len(), model.state_layout().len());
        let (slots, whole_tensors) = (optimizer.slots().len(), optimizer.whole_tensors());
        let mut replica = Replica::build(&*host, model.layout(), state_len, slots, whole_tensors)?;
        replica.write(&*host, |arenas| {
            if let [params, state, ..] = arenas {
                model.initialise(job.seed, params, state);
            }
        });
        let reproducible = job.distributed.reduction == Reduction::Reproducible;
        let exchange = Exchange::build(comm, host, reproducible, parts, len, state_len + EXTRAS, replica.part())?;
        Ok(Self {
            comm,
            loss,
            schedule,
            replica,
            exchange,
            targets: Targets::default(),
            seed: job.seed,
            augment: !job.data.augment.is_empty(),
            micro: job.train.micro_batch(),
            outputs: model.stack.output().len(),
            classes: matches!(data.task(), Task::Classes(_)),
            clip_norm: job.train.clip_norm,
            bucket: (job.distributed.overlap && comm.size() > 1).then(|| job.distributed.bucket_len()),
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
        let parts = samples.len().div_ceil(self.micro);
        let mine = self.exchange.begin(parts);
        self.prepare();
        self.clock.lap(Phase::Forward);
        let augment = self.augment.then_some(AugmentKey { seed: self.seed, epoch });
        let share = 1.0 / samples.len() as f64;
        for (index, part) in micro_batches(samples.len(), self.micro).enumerate() {
            if !mine.contains(&index) {
                continue;
            }
            // 1, 2: my samples and their targets.
            let (m, first) = (part.len(), part.start as u64);
            data.fill(Part::Train, &samples[part], augment, self.model.stack.x(m), &mut self.targets);
            self.clock.lap(Phase::Data);
            // 3: forward. 4: loss and its gradient.
            let mode = Mode::Train { seed: self.seed, step, first, share: m as f64 * share };
            let leaf = self.exchange.leaf(index);
            let (gradient, riders) = leaf.split_at_mut(self.replica.params.len());
            let (statistics, extras) = riders.split_at_mut(self.replica.state.len());
            self.model.stack.forward(m, mode, &self.replica.params, &self.replica.state, statistics);
            let (y, dy) = self.model.stack.y_and_dy(m);
            extras[LOSS] += self.loss.evaluate(m, self.outputs, y, &self.targets, share, Some(dy)) as f32;
            if self.classes {
                extras[CORRECT] += loss::correct(m, self.outputs, y, &self.targets) as f32;
            }
            extras[SIGNALLED] = if signalled { 1.0 } else { 0.0 };
            self.clock.lap(Phase::Forward);
            // 5: backward; the last one hands finished parts of the gradient to the sum over ranks, if they overlap.
            let stack = &mut self.model.stack;
            match self.bucket {
                Some(bucket) if index + 1 == mine.end => overlapped(self.comm, |reduce| {
                    stack.backward(m, mode, &self.replica.params, gradient, false, bucket, reduce);
                }),
                _ => stack.backward(m, mode, &self.replica.params, gradient, false, usize::MAX, &mut |_| {}),
            }
            self.exchange.finish(index);
            self.clock.lap(Phase::Backward);
        }
        // 6: sums over ranks.
        let done = self.finish_buckets(mine.is_empty());
        let grad_norm = self.exchange.sum(done).sqrt();
        let (lr, extras) = (self.schedule.rate(step), self.replica.params.len() + self.replica.state.len());
        let extras = &self.exchange.total()[extras..];
        let outcome = Outcome {
            loss: f64::from(extras[LOSS]),
            correct: f64::from(extras[CORRECT]),
            grad_norm,
            lr,
            signalled: extras[SIGNALLED] > 0.0,
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

    /// Packs weights for the passes to come.
    pub(super) fn prepare(&mut self) {
        self.model.stack.prepare(&self.replica.params);
        self.exchange.host().barrier();
    }

    /// With overlap every rank must start the same sums in the same order, so a rank without a micro-batch runs through the
    /// buckets of its zero gradient. Returns how many elements have been summed.
    fn finish_buckets(&mut self, idle: bool) -> usize {
        let Some(bucket) = self.bucket else { return 0 };
        let len = self.replica.params.len();
        if idle {
            let (gradient, stack) = (&mut self.exchange.leaf(0)[..len], &self.model.stack);
            overlapped(self.comm, |reduce| stack.hand_over(gradient, bucket, reduce));
        }
        len
    }

    /// Each rank of a host updates its part.
    fn update(&mut self, lr: f64, step: u64, grad_norm: f64) {
        let clip = self.clip_norm.map_or(1.0, |most| (most / grad_norm).min(1.0));
        let len = self.replica.params.len();
        let state = self.replica.state_mut(self.exchange.host());
        self.model.update_state(state, &self.exchange.total()[len..]);
        let first = self.replica.part().start;
        let mine = self.replica.part_mut();
        self.optimizer.update(Update {
            layout: self.model.layout(),
            first,
            params: mine.params,
            grads: self.exchange.part(),
            moments: mine.moments,
            lr: lr as f32,
            step: step + 1,
            grad_scale: clip as f32,
        });
        self.exchange.release();
    }

    /// Lets the ranks of a host keep one copy of the samples, if it has the memory. Collective.
    pub fn share(&self, data: &mut Dataset) {
        let host = self.exchange.host();
        if host.size() == 1 {
            return;
        }
        let kept = data.keep_samples(&mut |samples| {
            let mut shared = host.share_u8(samples.len())?;
            if host.rank() == 0 {
                // SAFETY: the other ranks wait at the barrier below.
                unsafe { shared.part_mut(0..samples.len()) }.copy_from_slice(samples);
            }
            host.barrier();
            Ok(Box::new(shared))
        });
        if let Err(error) = kept {
            log::info!("each rank keeps its own copy of the data: {error}");
        }
    }

    /// The model.
    pub fn model(&self) -> &Model<f32> {
        &self.model
    }

    /// Bytes that this rank needs of its own: gradients and workspace.
    pub fn memory(&self) -> usize {
        4 * (self.exchange.elements() + self.model.stack.workspace_len())
    }

    /// Bytes of parameters, state and moments, once a host.
    pub fn shared_memory(&self) -> usize {
        let moments: usize = self.replica.moments.iter().map(|moment| moment.len()).sum();
        4 * (self.replica.params.len() + self.replica.state.len() + moments)
    }

    /// The names of the optimizer's moments.
    pub fn slots(&self) -> &'static [&'static str] {
        self.optimizer.slots()
    }
}
