//! The layers: equations, shapes, forward beside backward. A new one is a file here and a line in [`REGISTRY`].

mod adaptive_avg_pool2d;
mod avg_pool2d;
mod batch_norm;
mod chain;
mod conv2d;
mod dropout;
mod elementwise;
mod flatten;
mod gelu;
mod gru;
mod layer_norm;
mod leaky_relu;
mod linear;
mod lstm;
mod max_pool2d;
mod op;
mod recurrent;
mod registry;
mod relu;
mod residual;
mod sigmoid;
mod stack;
mod tanh;

pub use batch_norm::BatchNormSlots;
pub use op::{Described, Op};
pub use registry::{Element, Entry, Example, Place, REGISTRY, build, find};
pub use stack::{Onto, Pass, Stack};

use crate::arena::{Layout, Storage};
use crate::kernel::{Needs, Real};
use crate::rng::{Purpose, Stream};
use crate::shape::Shape;
use std::ops::Range;

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initial {
    /// Uniform in ±bound.
    Uniform(f64),
    /// One value.
    Constant(f64),
}

/// A trainable parameter of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// As in torch: `weight`.
    pub name: String,
    /// As in torch.
    pub shape: Vec<usize>,
    /// In the arena.
    pub storage: Storage,
    /// torch.nn's default.
    pub initial: Initial,
}

/// A buffer that training fills but no gradient changes (`running_mean`): it becomes
/// (1 - momentum)·old + momentum·(the step's statistic).
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// As in torch.
    pub name: String,
    /// As in torch.
    pub shape: Vec<usize>,
    /// First value.
    pub initial: f64,
    /// The new statistic's weight.
    pub momentum: f64,
}

/// A layer that a convolution before it can do on its way.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// max(x, 0).
    Relu,
    /// The largest of each 2 × 2 window, without overlap or padding.
    MaxPool,
    /// Batch norm over a micro-batch's pixels.
    BatchNorm(BatchNormSlots),
}

/// What a batch norm's statistics are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Values of each channel in one sample.
    pub values: usize,
    /// Of the global batch, not of a micro-batch.
    pub sync: bool,
}

/// What a layer, made for one input shape and micro-batch size, will need and give.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What it does, for other forms of it.
    pub op: Op,
    /// Shape of its output.
    pub output: Shape,
    /// Its parameters, in arena order.
    pub parameters: Vec<Parameter>,
    /// Its state buffers.
    pub states: Vec<State>,
    /// Elements kept from forward to backward, for a whole micro-batch.
    pub cache: usize,
    /// Elements of shared scratch, free between calls.
    pub scratch: usize,
    /// Elements of weights packed once a step.
    pub packed: usize,
    /// Whether it overwrites its input with its output, and dy with dx.
    pub in_place: bool,
    /// Whether backward can overwrite the parameters' gradients as well as add to them; others get zeros to add to.
    pub overwrites: bool,
    /// Whether backward adds to each element of the parameters' gradients once, the whole sum of a micro-batch: then a
    /// gradient that others are in already becomes what a sum of two gradients would be, to the bit.
    pub adds_once: bool,
    /// Whether backward reads the output, so that a following in-place layer must not overwrite it.
    pub reads_output: bool,
    /// What it is to a convolution before it, where that can do it on its way.
    pub step: Option<Step>,
    /// Multiply-adds of a sample's forward pass, counted as 2.
    pub flops: u64,
    /// How often a pass stops for sums over all micro-batches of the global batch: it then has so many phases more.
    pub stops: usize,
    /// Values that are summed at a stop, at most.
    pub sums: usize,
    /// What its products really do, where that is not `flops` with each parameter read once: multiply-adds of a sample's
    /// forward pass, counted as 2, and elements of weights.
    pub work: Option<(u64, u64)>,
    /// How its products are made, for people.
    pub method: Option<&'static str>,
    /// What batch statistics it and the layers in it take.
    pub statistics: Vec<Statistics>,
    /// The numbers of the random streams it draws from, which no other layer of the model has.
    pub streams: Vec<u32>,
    layout: Layout,
    state_layout: Layout,
}

impl Plan {
    /// A layer without parameters, caches or products.
    pub fn new(op: Op, output: Shape) -> Self {
        Self {
            op,
            output,
            parameters: Vec::new(),
            states: Vec::new(),
            cache: 0,
            scratch: 0,
            packed: 0,
            in_place: false,
            overwrites: false,
            adds_once: false,
            reads_output: false,
            step: None,
            flops: 0,
            stops: 0,
            sums: 0,
            work: None,
            method: None,
            statistics: Vec::new(),
            streams: Vec::new(),
            layout: Layout::default(),
            state_layout: Layout::default(),
        }
    }

    /// Adds a parameter and returns where it lies in the layer's slice of the arena.
    pub fn parameter(&mut self, name: &str, shape: &[usize], storage: Storage, initial: Initial) -> Range<usize> {
        self.parameters.push(Parameter { name: name.into(), shape: shape.into(), storage, initial });
        self.layout.push("", name, shape, storage)
    }

    /// Adds a state buffer and returns where it lies in the layer's slice of the state arena.
    pub fn state(&mut self, name: &str, len: usize, initial: f64, momentum: f64) -> Range<usize> {
        self.states.push(State { name: name.into(), shape: vec![len], initial, momentum });
        self.state_layout.push("", name, &[len], Storage::Plain)
    }

    /// Asks for what an operator needs.
    pub(crate) fn take_needs(&mut self, needs: Needs) {
        (self.packed, self.scratch, self.work) = (needs.packed, needs.scratch, needs.work);
    }

    /// What its products really do.
    pub fn work(&self) -> (u64, u64) {
        let matrices = self.parameters.iter().filter(|parameter| parameter.shape.len() > 1);
        let weights: usize = matrices.map(|matrix| matrix.shape.iter().product::<usize>()).sum();
        self.work.unwrap_or((self.flops, weights as u64))
    }

    /// Number of trainable parameters.
    pub fn parameter_count(&self) -> usize {
        self.layout.elements()
    }
}

/// Whether a pass trains, and the keys of its random numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Dropout on, batch statistics.
    Train {
        /// The job's seed.
        seed: u64,
        /// The optimizer step.
        step: u64,
        /// Position in the global batch of the micro-batch's first sample.
        first: u64,
        /// This micro-batch's share of the global batch: samples / global samples.
        share: f64,
    },
    /// Dropout off, running statistics.
    Eval,
}

impl Mode {
    /// The random stream with this number of one sample of the micro-batch; None in evaluation.
    pub fn stream(self, sample: usize, number: u32) -> Option<Stream> {
        match self {
            Mode::Train { seed, step, first, .. } => {
                Some(Stream::new(seed, Purpose::Dropout, step, first + sample as u64).numbered(number))
            }
            Mode::Eval => None,
        }
    }
}

/// What a forward pass works on. `x` is empty for an in-place layer, which finds its input in `y`.
pub struct Forward<'a, T> {
    /// Samples in this micro-batch (at most the planned number).
    pub m: usize,
    /// Training or evaluation.
    pub mode: Mode,
    /// Input, (M, ...).
    pub x: &'a [T],
    /// Output, (M, ...).
    pub y: &'a mut [T],
    /// The layer's part of the parameter arena, one slice a parameter.
    pub params: &'a [T],
    /// The layer's packed weights.
    pub packed: &'a [T],
    /// The layer's part of the state arena.
    pub state: &'a [T],
    /// Where the batch's statistics, times the micro-batch's share, are added, laid out like `state`.
    pub statistics: &'a mut [T],
    /// Kept for backward.
    pub cache: &'a mut [T],
    /// Free to use.
    pub scratch: &'a mut [T],
    /// Which part of the pass: 0, or more if the plan has stops.
    pub phase: usize,
    /// Of a micro-batch at the end of a phase, of all micro-batches at the start of the next.
    pub sums: &'a mut [f64],
}

/// What a backward pass works on.
pub struct Backward<'a, T> {
    /// Samples in this micro-batch.
    pub m: usize,
    /// As in forward.
    pub mode: Mode,
    /// The input forward saw; empty for an in-place layer.
    pub x: &'a [T],
    /// The output forward gave (valid only where the plan says `reads_output`, or for an in-place layer).
    pub y: &'a [T],
    /// Gradient of the output; an in-place layer leaves dx here. May be overwritten.
    pub dy: &'a mut [T],
    /// Gradient of the input, to be overwritten; None where nobody needs it.
    pub dx: Option<&'a mut [T]>,
    /// The layer's part of the parameter arena.
    pub params: &'a [T],
    /// The layer's packed weights.
    pub packed: &'a [T],
    /// The layer's part of the gradient arena, to be added to.
    pub dparams: &'a mut [T],
    /// Whether `dparams` is to be overwritten instead, which only a layer that [does so](Plan::overwrites) sees.
    pub fresh: bool,
    /// As forward left it.
    pub cache: &'a mut [T],
    /// Free to use.
    pub scratch: &'a mut [T],
    /// As in forward.
    pub phase: usize,
    /// As in forward.
    pub sums: &'a mut [f64],
}

/// A layer built for one input shape and micro-batch size.
pub trait Layer<T: Real>: Send {
    /// Needs and gives.
    fn plan(&self) -> &Plan;
    /// Takes over the first few of the layers that follow, if it can do them on its way: returns how many. Of each it gets
    /// the step and where its parameters begin, counted from this layer's. From then on the layer's input is what it was,
    /// its output is that of the last layer taken over, parameters and state are those of all of them, and the plan tells
    /// the new needs (but the layer's own output).
    fn absorb(&mut self, _following: &[(Step, usize)]) -> usize {
        0
    }
    /// Once a step, after the weights changed: fills `packed`.
    fn prepare(&mut self, _params: &[T], _packed: &mut [T]) {}
    /// y = f(x).
    fn forward(&mut self, io: Forward<'_, T>);
    /// dparams += ..., dx = ....
    fn backward(&mut self, io: Backward<'_, T>);
}
