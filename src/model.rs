//! A network built from a job: the layers' stack, initial weights and the table of layers. Owns no parameters and
//! knows no MPI.

use crate::arena::Layout;
use crate::config::{Component, Precision};
use crate::error::Result;
use crate::layer::{Element, Initial, Place, Stack, Statistics};
use crate::rng::{Numbers, Purpose, Stream};
use crate::shape::Shape;
use ndarray_rand::RandomExt;
use ndarray_rand::rand_distr::Uniform;

/// A network for one input shape and micro-batch size.
pub struct Model<T> {
    /// The layers.
    pub stack: Stack<T>,
    /// How much of each state slot the step's statistic replaces.
    momentum: Vec<f64>,
    initial_state: Vec<f64>,
    initial: Vec<Initial>,
}

/// One row of the model table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The layer's number.
    pub key: String,
    /// `conv2d`.
    pub kind: String,
    /// Shape of a sample's input.
    pub input: Shape,
    /// Shape of a sample's output.
    pub output: Shape,
    /// Trainable parameters.
    pub parameters: usize,
    /// Forward multiply-adds of a sample, counted as 2.
    pub flops: u64,
    /// How its products are made; None for a layer without any.
    pub method: Option<&'static str>,
}

impl<T: Element> Model<T> {
    /// Builds `layers` on samples of shape `input` in micro-batches of at most `m`, with products in f32.
    ///
    /// # Errors
    /// Unknown layers or keys, and shapes that do not fit, by layer.
    pub fn build(layers: &[Component], input: Shape, m: usize) -> Result<Self> {
        Self::with_precision(Precision::F32, layers, input, m)
    }

    /// [`Model::build`] with products in `precision`.
    ///
    /// # Errors
    /// As there.
    pub fn with_precision(precision: Precision, layers: &[Component], input: Shape, m: usize) -> Result<Self> {
        let stack = Stack::build(layers, Place { input, m, number: 0, numbers: &Numbers::default(), precision }, "")?;
        let plans = || stack.plans().map(|(_, _, _, plan)| plan);
        let initial = plans().flat_map(|plan| plan.parameters.iter().map(|p| p.initial)).collect();
        let momentum = plans().flat_map(|plan| plan.states.iter().map(|s| s.momentum)).collect();
        let initial_state = plans().flat_map(|plan| plan.states.iter().map(|s| s.initial)).collect();
        Ok(Self { stack, momentum, initial_state, initial })
    }

    /// Where the parameters lie.
    pub fn layout(&self) -> &Layout {
        self.stack.layout()
    }

    /// Where the state buffers (running statistics) lie.
    pub fn state_layout(&self) -> &Layout {
        self.stack.state_layout()
    }

    /// torch.nn's default initialisation, keyed by (seed, parameter).
    pub fn initialise(&self, seed: u64, params: &mut [T], state: &mut [T]) {
        for (index, (slot, initial)) in self.layout().slots().iter().zip(&self.initial).enumerate() {
            let tensor = match *initial {
                Initial::Constant(value) => vec![T::of(value); slot.len()],
                Initial::Uniform(bound) => {
                    let mut stream = Stream::new(seed, Purpose::Init, 0, index as u64);
                    let values = Uniform::new_inclusive(-bound as f32, bound as f32)
                        .map(|uniform| ndarray::Array1::random_using(slot.len(), uniform, &mut stream).to_vec())
                        .unwrap_or_else(|_| vec![0.0; slot.len()]);
                    values.into_iter().map(|value| T::of(f64::from(value))).collect()
                }
            };
            slot.write(&tensor, params);
        }
        for (slot, value) in self.state_layout().slots().iter().zip(&self.initial_state) {
            state[slot.range.clone()].fill(T::of(*value));
        }
    }

    /// state = (1 − momentum)·state + momentum·statistics; an empty state stays so.
    pub fn update_state(&self, state: &mut [T], statistics: &[T]) {
        if state.is_empty() {
            return;
        }
        for (slot, momentum) in self.state_layout().slots().iter().zip(&self.momentum) {
            let momentum = T::of(*momentum);
            for (state, new) in state[slot.range.clone()].iter_mut().zip(&statistics[slot.range.clone()]) {
                *state += momentum * (*new - *state);
            }
        }
    }

    /// The layers, one row each.
    pub fn rows(&self) -> Vec<Row> {
        self.stack
            .plans()
            .map(|(key, kind, input, plan)| Row {
                key: key.into(),
                kind: kind.into(),
                input,
                output: plan.output,
                parameters: plan.parameter_count(),
                flops: plan.flops,
                method: plan.method,
            })
            .collect()
    }

    /// What batch norms take their statistics of.
    pub fn statistics(&self) -> impl Iterator<Item = Statistics> {
        self.stack.plans().flat_map(|(_, _, _, plan)| plan.statistics.iter().copied())
    }

    /// What products really do: multiply-adds of a sample's forward and backward pass, counted as 2, and elements of weights.
    pub fn work(&self) -> (u64, u64) {
        let works = self.stack.plans().map(|(_, _, _, plan)| plan.work());
        works.fold((0, 0), |sum, (flops, weights)| (sum.0 + 3 * flops, sum.1 + weights))
    }

    /// Forward and backward multiply-adds of one sample, counted as 2: the backward pass takes twice the forward one,
    /// less the first layer's input gradient.
    pub fn train_flops(&self) -> u64 {
        let rows = self.rows();
        let first = rows.iter().find(|row| row.flops > 0).map_or(0, |row| row.flops);
        3 * rows.iter().map(|row| row.flops).sum::<u64>() - first
    }
}
