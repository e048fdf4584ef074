//! The sum over ranks and the update without a model: what `ddl bench reduce` measures.

use super::replica::Replica;
use super::step::EXTRAS;
use crate::arena::{Buffer, Layout, Storage};
use crate::comm::{Comm, agree};
use crate::config::Component;
use crate::error::Result;
use crate::optimizer::{self, Optimizer, Update};
use crate::reduction::{Demand, Exchange};
use std::time::{Duration, Instant};

const LR: f32 = 0.01;

/// How gradients become updated weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// MPI_Allreduce, then each rank updates all of its own weights.
    Allreduce,
    /// The ranks of a host sum in shared memory and update one copy.
    Shared,
    /// `distributed.exchange = "mpi"`.
    Messages,
    /// `distributed.reduction = "reproducible"`, in shared memory.
    Reproducible,
}

impl Way {
    /// All, the yardstick first, with their names.
    pub const ALL: [(Way, &'static str); 4] = [
        (Way::Allreduce, "allreduce"),
        (Way::Shared, "shared"),
        (Way::Messages, "messages"),
        (Way::Reproducible, "reproducible"),
    ];
}

/// Steps of SGD with momentum on gradients that nobody had to compute, the same in every [`Way`].
pub struct Rehearsal<'c> {
    comm: &'c dyn Comm,
    layout: Layout,
    optimizer: Box<dyn Optimizer>,
    micro_batches: usize,
    /// What a micro-batch's gradient consists of, over and over; differs between ranks.
    content: Vec<f32>,
    means: Means,
    steps: u64,
}

enum Means {
    Own { params: Buffer<f32>, gradient: Buffer<f32>, momentum: Buffer<f32> },
    Exchange(Box<(Exchange, Replica)>),
}

impl<'c> Rehearsal<'c> {
    /// For gradients of `elements`, of `micro_batches` on each rank. Collective.
    ///
    /// # Errors
    /// A host has no memory to share for them; on every rank.
    pub fn build(comm: &'c dyn Comm, way: Way, elements: usize, micro_batches: usize) -> Result<Self> {
        let mut layout = Layout::default();
        layout.push("0", "weight", &[elements], Storage::Plain);
        let optimizer = optimizer::build(&Component::new("sgd", &format!("lr = {LR}\nmomentum = 0.9"))?)?;
        let means = if way == Way::Allreduce {
            let [params, gradient, momentum] = [(); 3].map(|()| Buffer::zeros(layout.len()));
            Means::Own { params, gradient, momentum }
        } else {
            let (reproducible, leaves) = (way == Way::Reproducible, micro_batches * comm.size());
            let slots = optimizer.slots().len();
            let demand = Demand {
                reproducible,
                leaves,
                together: false,
                bf16_wire: false,
                params: layout.len(),
                riders: EXTRAS,
            };
            let bytes = 4 * ((1 + slots) * layout.len() + demand.elements(comm.size()));
            let host = agree(comm, comm.host((way != Way::Messages).then_some(bytes)))?;
            let replica = agree(comm, Replica::build(&*host, &layout, 0, slots, optimizer.whole_tensors()))?;
            let part = replica.part();
            let exchange = Exchange::build(comm, host, demand, &[], part);
            Means::Exchange(Box::new((agree(comm, exchange)?, replica)))
        };
        let content = (0..4096).map(|i| ((i * 7 + comm.rank() * 3) % 31) as f32 / 31.0 - 0.5).collect();
        Ok(Self { comm, layout, optimizer, micro_batches, content, means, steps: 0 })
    }

    /// One step; the seconds this rank took for sum and update, waiting for others included.
    pub fn step(&mut self) -> f64 {
        self.steps += 1;
        match &mut self.means {
            Means::Own { params, gradient, momentum } => {
                (0..self.micro_batches).for_each(|index| backward(&self.content, gradient, index == 0));
                self.comm.barrier();
                let began = Instant::now();
                self.comm.sum_f32(gradient);
                self.optimizer.update(Update {
                    layout: &self.layout,
                    first: 0,
                    params,
                    grads: gradient,
                    moments: [momentum, &mut []],
                    lr: LR,
                    momentum: None,
                    step: self.steps,
                    grad_scale: 1.0,
                });
                began.elapsed().as_secs_f64()
            }
            Means::Exchange(both) => {
                let (exchange, replica) = &mut **both;
                let merging = micro_batches(exchange, self.micro_batches * self.comm.size(), &self.content);
                self.comm.barrier();
                let began = Instant::now();
                let mut updating = replica.updating(&*self.optimizer, &self.layout, LR, None, self.steps);
                let squares = exchange.sum(0, |range, grads| updating.update(range, grads, 1.0));
                assert!(squares.is_finite(), "gradients of constants");
                exchange.release();
                (merging + began.elapsed()).as_secs_f64()
            }
        }
    }

    /// A sum over the ranks of this host alone, and no update: the seconds of the host's first rank, 0 on others.
    pub fn sum_on_host(&mut self) -> f64 {
        let Means::Exchange(both) = &mut self.means else { return 0.0 };
        let exchange = &mut both.0;
        micro_batches(exchange, self.micro_batches * self.comm.size(), &self.content);
        self.comm.barrier();
        let (began, mut seconds) = (Instant::now(), 0.0);
        exchange.sum_on_host(|_, _| seconds = began.elapsed().as_secs_f64());
        exchange.release();
        seconds
    }

    /// The largest difference between these weights and another's, in parts of the largest weight.
    pub fn difference(&self, other: &Self) -> f32 {
        let largest = other.params().iter().fold(f32::MIN_POSITIVE, |most, v| most.max(v.abs()));
        let pairs = self.params().iter().zip(other.params());
        pairs.fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
    }

    fn params(&self) -> &[f32] {
        match &self.means {
            Means::Own { params, .. } => params,
            Means::Exchange(both) => &both.1.params,
        }
    }
}

/// The gradients of this rank's of `leaves` micro-batches; the time it took to merge them.
fn micro_batches(exchange: &mut Exchange, leaves: usize, content: &[f32]) -> Duration {
    let mut merging = Duration::ZERO;
    for index in exchange.begin(leaves) {
        exchange.open(index);
        let fresh = exchange.is_fresh(index);
        let gradient = exchange.leaf(index);
        let params = gradient.len() - EXTRAS;
        backward(content, &mut gradient[..params], fresh);
        let began = Instant::now();
        exchange.finish(index);
        merging += began.elapsed();
    }
    merging
}

/// Adds a micro-batch's gradient, or overwrites by it.
fn backward(content: &[f32], gradient: &mut [f32], fresh: bool) {
    for chunk in gradient.chunks_mut(content.len()) {
        let values = chunk.iter_mut().zip(content);
        values.for_each(|(g, c)| *g = if fresh { *c } else { *g + *c });
    }
}
