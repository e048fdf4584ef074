//! What trains: a model, its parameters and what updates them, built from a job.

use super::clock::{Clock, Phase};
use super::local::Local;
use super::micro_batch::MicroBatch;
use super::mixing::Mixing;
use super::precision::agreed;
use super::replica::Replica;
use super::step::EXTRAS;
use super::together::Together;
use crate::comm::{Comm, Host, Shared, agree};
use crate::config::{Component, Job, Precision, Reduction, Train, Wire};
use crate::data::{Batch, Dataset, Loader, Part, Targets, Task};
use crate::error::{Error, Result};
use crate::loss::{self, Loss};
use crate::model::Model;
use crate::optimizer::{self, Optimizer, Schedule};
use crate::reduction::{Demand, Exchange};
use crate::resource::{memory, require_memory};
use crate::shard::own;
use std::ops::Range;

/// Everything a rank needs to train: the model, its parameters and what updates them.
pub struct Trainer<'c> {
    pub(super) comm: &'c dyn Comm,
    pub(super) model: Model<f32>,
    pub(super) goal: Goal,
    pub(super) optimizer: Box<dyn Optimizer>,
    pub(super) schedule: Schedule,
    /// Parameters, state and moments.
    pub replica: Replica,
    /// Of micro-batches: the gradient, then the step's statistics, then the extras.
    pub(super) exchange: Exchange,
    pub(super) targets: Targets,
    /// Whether gradients are there to be looked at: not summed yet when they are complete, and then of the whole batch.
    pub(super) measures_noise: bool,
    /// The layer, key and kind, behind which this rank first saw a number that is not finite.
    pub(super) not_finite: Option<(String, String)>,
    /// Where hosts make steps of their own.
    pub(super) local: Option<Local>,
    /// Where layers stop for sums over the batch.
    pub(super) together: Option<Together>,
    pub(super) seed: u64,
    /// What products multiply in.
    pub precision: Precision,
    pub(super) augment: bool,
    /// Where samples are mixed with others of their batch.
    pub(super) mixing: Option<Mixing>,
    /// The loss's table with what the training part tells written out.
    settled_loss: Component,
    pub(super) micro: usize,
    /// Why so many, where the job does not say it.
    pub(super) micro_reason: Option<String>,
    pub(super) clip_norm: Option<f64>,
    /// Bucket elements when sums overlap the backward pass.
    pub(super) bucket: Option<usize>,
    /// Where the time goes.
    pub clock: Clock,
}

/// What the outputs are judged by.
pub(super) struct Goal {
    pub loss: Box<dyn Loss>,
    /// Outputs of a sample.
    pub outputs: usize,
    /// Whether they are scores of classes.
    pub classes: bool,
}

impl Goal {
    /// What a mean over `samples` of a part is divided by: how many they are, or the sum of their targets' weights.
    pub fn total(&self, data: &Dataset, part: Part, samples: impl ExactSizeIterator<Item = u32>) -> f64 {
        match self.loss.class_weights() {
            None => samples.len() as f64,
            Some(weights) => {
                samples.map(|sample| data.class(part, sample).map_or(0.0, |class| weights[class as usize])).sum()
            }
        }
    }
}

/// A mean's quotient: 0 where nothing counts.
pub(super) fn over(sum: f64, total: f64) -> f64 {
    if total > 0.0 { sum / total } else { 0.0 }
}

/// What a job says a trainer is made of, found fitting.
struct Design {
    micro: MicroBatch,
    model: Model<f32>,
    loss: Box<dyn Loss>,
    /// What the loss was built from.
    settled_loss: Component,
    optimizer: Box<dyn Optimizer>,
    schedule: Schedule,
    /// Passes side by side, with room for all of a rank's micro-batches.
    together: Option<Together>,
    demand: Demand,
    /// Memory that ranks of a host share, if they do.
    shared_bytes: usize,
}

impl Design {
    fn of(job: &Job, data: &Dataset, ranks: usize, precision: Precision) -> Result<Self> {
        let chosen = MicroBatch::of(job, data)?;
        let (batch, micro) = (job.train.global_batch(ranks), chosen.samples);
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
        let model = Model::<f32>::with_precision(precision, &job.layers, data.input(), micro)?;
        chosen.check(job, data, &model, ranks)?;
        let settled_loss = loss::settled(&job.loss, &data.class_counts())?;
        let loss = loss::build(&settled_loss, data.task(), model.stack.output().len())?;
        let optimizer = optimizer::build(&job.optimizer)?;
        let steps_per_epoch = samples.div_ceil(batch) as u64;
        let total = steps_per_epoch * job.train.epochs;
        let schedule = Schedule::build(&job.schedule, optimizer.lr(), batch, steps_per_epoch, total)?;
        if schedule.momentum(0).is_some() && !optimizer.has_momentum() {
            let what = "moves momentum, but the optimizer has none";
            return Err(job.schedule.error(
                "cycle_momentum",
                what,
                "set cycle_momentum = false, or optimizer.momentum",
            ));
        }
        let (len, state_len) = (model.layout().len(), model.state_layout().len());
        let demand = Demand {
            reproducible: job.distributed.reduction == Reduction::Reproducible,
            leaves: parts.min(samples.div_ceil(micro)),
            together: model.stack.stops() > 0,
            bf16_wire: job.distributed.wire == Wire::Bf16,
            params: len,
            riders: state_len + EXTRAS,
        };
        if demand.together && job.distributed.overlap {
            let what = "does not go with batch norm over the global batch (sync)";
            return Err(Error::usage(format!("{}, distributed.overlap", job.file), what, "set overlap = false"));
        }
        let lanes = if demand.together { demand.leaves.div_ceil(ranks) } else { 0 };
        let (gradients, copies) = (demand.elements(ranks), 1 + optimizer.slots().len());
        // Rank 0 makes a checkpoint in memory before it is written; all ranks here are taken to be as large in turn.
        let image = (copies * len + state_len).div_ceil(ranks);
        let elements = copies * len + state_len + gradients + (1 + lanes) * model.stack.workspace_len() + image;
        let mend = "use smaller layers, or an optimizer with fewer moments such as sgd";
        require_memory(&format!("{}, model.layers", job.file), 4.0 * elements as f64, mend)?;
        let shared_bytes = 4 * (copies * len + state_len + gradients);
        let build = || Model::<f32>::with_precision(precision, &job.layers, data.input(), micro);
        let together = match demand.together {
            true => Some(Together::new((0..lanes).map(|_| Ok(build()?.stack)).collect::<Result<_>>()?, demand.leaves)),
            false => None,
        };
        Ok(Self { micro: chosen, model, loss, settled_loss, optimizer, schedule, together, demand, shared_bytes })
    }
}

impl<'c> Trainer<'c> {
    /// Builds the job's model, loss, optimizer and schedule for `data`, with fresh weights. Collective.
    ///
    /// # Errors
    /// Whatever of the job does not fit, by key; on every rank.
    pub fn build(job: &Job, data: &Dataset, comm: &'c dyn Comm) -> Result<Self> {
        let precision = agreed(job.train.precision, comm);
        let Design { micro, model, loss, settled_loss, optimizer, schedule, together, demand, shared_bytes } =
            agree(comm, Design::of(job, data, comm.size(), precision))?;
        let host = agree(comm, comm.host(job.distributed.shares_memory().then_some(shared_bytes)))?;
        let state_len = model.state_layout().len();
        let (every, hosts) = (job.distributed.average_every, host.members());
        let weight = hosts[host.index()].len() as f64 / comm.size() as f64;
        let local = (every > 1 && hosts.len() > 1).then_some(Local { every, weight, strayed: false });
        let (slots, whole_tensors) = (optimizer.slots().len(), optimizer.whole_tensors());
        let mut replica = agree(comm, Replica::build(&*host, model.layout(), state_len, slots, whole_tensors))?;
        replica.write(&*host, |arenas| {
            if let [params, state, ..] = arenas {
                model.initialise(job.seed, params, state);
            }
        });
        let exchange = Exchange::build(comm, host, demand, &model.stack.added_once(), replica.part());
        Ok(Self {
            comm,
            goal: Goal { loss, outputs: model.stack.output().len(), classes: matches!(data.task(), Task::Classes(_)) },
            schedule,
            replica,
            exchange: agree(comm, exchange)?,
            targets: Targets::default(),
            measures_noise: !job.distributed.overlap && every == 1,
            not_finite: None,
            local,
            together,
            seed: job.seed,
            precision,
            augment: !job.data.augment.is_empty(),
            mixing: data.mixup().map(|alpha| Mixing::new(alpha, job.train.global_batch(comm.size()))),
            settled_loss,
            micro: micro.samples,
            micro_reason: micro.reason,
            clip_norm: job.train.clip_norm,
            bucket: (job.distributed.overlap && comm.size() > 1).then(|| job.distributed.bucket_len()),
            clock: Clock::start(),
            optimizer,
            model,
        })
    }

    /// [`share`] among the ranks that train.
    ///
    /// # Errors
    /// As there.
    pub fn share(&self, data: &mut Dataset) -> Result<()> {
        share(self.exchange.host(), self.comm, data)
    }

    /// Batches of `batch` training samples from `order`, the first of which is that of `step`. Where samples stay in their files,
    /// this rank's are read ahead.
    pub fn loader<'a>(&self, data: &'a Dataset, order: &'a [u32], batch: usize, step: u64) -> Loader<'a> {
        let (rank, ranks, micro, seed) = (self.comm.rank(), self.comm.size(), self.micro, self.seed);
        let mut mixing = data.mixup().map(|alpha| Mixing::new(alpha, batch));
        let most = own(batch.div_ceil(micro), 0, ranks).len() * micro * (1 + usize::from(mixing.is_some()));
        Loader::new(data, Part::Train, (order, batch), most, move |number, samples, needed| {
            let mine = own(samples.len().div_ceil(micro), rank, ranks);
            // A rank may have nothing of the last batch, whose last micro-batch may be short.
            let [first, last] = [mine.start, mine.end].map(|end| samples.len().min(end * micro));
            let range = first..last;
            needed.own(range.clone(), samples);
            if let Some(mixing) = &mut mixing {
                mixing.draw(seed, step + number, samples);
                needed.others(mixing.others(range.start, range.len()));
            }
        })
    }

    /// The next batch; what one rank cannot read is every rank's error. Collective where samples stay in their files.
    pub fn next<'l>(&mut self, loader: &'l mut Loader) -> Option<Result<Batch<'l>>> {
        if !loader.streams() {
            return loader.next();
        }
        self.clock.enter(Phase::Data);
        let batch = loader.next().map(|batch| agree(self.comm, batch));
        if batch.is_none() {
            self.clock.leave();
        }
        batch
    }

    /// The model.
    pub fn model(&self) -> &Model<f32> {
        &self.model
    }

    /// Bytes that this rank needs of its own: gradients and workspace.
    pub fn memory(&self) -> usize {
        let lanes = self.together.as_ref().map_or(0, Together::workspace_len);
        4 * (self.exchange.elements() + self.model.stack.workspace_len() + lanes)
    }

    /// Bytes of parameters, state and moments, once a host.
    pub fn shared_memory(&self) -> usize {
        let moments: usize = self.replica.moments.iter().map(|moment| moment.len()).sum();
        4 * (self.replica.params.len() + self.replica.state.len() + moments)
    }

    /// The job with the micro-batch that it is trained in, and balanced weights, written out.
    pub fn settled(&self, job: &Job) -> Job {
        let train = Train { micro_batch: Some(self.micro), ..job.train.clone() };
        Job { train, loss: self.settled_loss.clone(), ..job.clone() }
    }

    /// The names of the optimizer's moments.
    pub fn slots(&self) -> &'static [&'static str] {
        self.optimizer.slots()
    }
}

/// Lets the ranks of a host keep one copy of the samples, if it has the memory; or leaves them in their files, where the job
/// says so or they would not fit. Collective.
///
/// # Errors
/// Samples that could not be read, or are not finite; on every rank.
pub fn share(host: &dyn Host, comm: &dyn Comm, data: &mut Dataset) -> Result<()> {
    // Some room is left for what else a run needs.
    let fits = |bytes: usize| memory::ask(1.25 * bytes as f64 / host.size() as f64).is_ok();
    if comm.max(i64::from(data.should_stream(fits))) > 0 {
        data.stream();
        return Ok(());
    }
    let unread = data.unread_bytes() > 0;
    // A rank that cannot read goes on as the others do, up to where all agree.
    let mut read = Ok(());
    if host.size() > 1 {
        let kept = data.keep_samples(false, &mut |samples| {
            let write = |items: Range<usize>, to: &mut [u8]| {
                if read.is_ok() {
                    read = samples.write(items, to);
                }
            };
            Ok(Box::new(Shared::written(host, samples.count(), samples.size(), write)?))
        });
        if let Err(error) = kept {
            log::info!("each rank keeps its own copy of the data: {error}");
        }
    }
    let checked = |data: &Dataset| if unread { data.check() } else { Ok(()) };
    agree(comm, read.and_then(|()| data.read()).and_then(|()| checked(data)))
}
