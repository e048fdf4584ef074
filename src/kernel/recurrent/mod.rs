//! One direction of a recurrent layer over a sequence: planned once. Equations as in torch.nn.LSTM and torch.nn.GRU.
//!
//! A kind of cell is a variant of [`CellKind`] and its two functions in `cell.rs`; what goes over the steps is shared.

mod cell;
mod layout;
mod sequence;

pub use layout::Recurrence;

use super::{Isa, Precision};
use ndarray::{ArrayView3, ArrayViewMut3};
use sequence::Sequence;

/// Units whose gates lie side by side.
const GROUP: usize = 16;
/// Their gates: two panels.
const GATES: usize = 4 * GROUP;
/// Rows that a weight gradient takes at a time, or one step's if these are more.
const CHUNK_ROWS: usize = 64;

/// A kind of cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellKind {
    /// c_t = σ(f)·c_{t-1} + σ(i)·tanh(g), h_t = σ(o)·tanh(c_t); gates i, f, g, o (Hochreiter and Schmidhuber, 1997).
    Lstm,
    /// n = tanh(W_in·x + b_in + σ(r)·(W_hn·h_{t-1} + b_hn)), h_t = (1 - σ(z))·n + σ(z)·h_{t-1}; gates r, z, n (Cho and
    /// others, 2014, as torch has it).
    Gru,
}

impl CellKind {
    /// Gates that have weights.
    pub fn gates(self) -> usize {
        match self {
            CellKind::Lstm => 4,
            CellKind::Gru => 3,
        }
    }
}

/// Weights and biases of one direction, as the arena has them; G gates.
#[derive(Debug, Clone, Copy)]
pub struct CellWeights<'a, T> {
    /// Panels (inputs × G·H).
    pub ih: &'a [T],
    /// Panels (H × G·H).
    pub hh: &'a [T],
    /// G·H each.
    pub bias: Option<(&'a [T], &'a [T])>,
    /// As [`Cell::prepare`] left them.
    pub packed: &'a [T],
}

/// Their gradients, to be added to.
#[derive(Debug)]
pub struct CellGradients<'a, T> {
    /// As [`CellWeights::ih`].
    pub ih: &'a mut [T],
    /// As [`CellWeights::hh`].
    pub hh: &'a mut [T],
    /// G·H each.
    pub bias: Option<(&'a mut [T], &'a mut [T])>,
}

/// What a forward pass leaves for the way back.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a, T> {
    /// Rows (h, x) of T + 1 steps: (T + 1, M, [`Recurrence::row_len`]).
    pub rows: ArrayView3<'a, T>,
    /// The cell's own.
    pub cache: &'a [T],
}

/// The passes of one direction over a sequence. Sizes of buffers are [`Recurrence`]'s.
///
/// # Panics
/// All of it, where views do not have the planned shapes or do not lie dense.
pub trait Cell<T>: Send {
    /// How it multiplies, for people.
    fn method(&self) -> &'static str;
    /// Once a step: the weights in the forms that the passes want.
    fn prepare(&self, _weights: CellWeights<'_, T>, _packed: &mut [T]) {}
    /// Runs over the sequence: of the rows (h, x) x is given and h is filled, that of the last step behind the last x.
    fn forward(&self, weights: CellWeights<'_, T>, rows: ArrayViewMut3<'_, T>, cache: &mut [T], scratch: &mut [T]);
    /// From `dy` (T, M, width), the gradient of all directions' hidden states in the order of time, adds to those of the
    /// weights. `dx` (T, M, inputs) is overwritten, or added to by the reverse direction.
    fn backward(
        &self,
        weights: CellWeights<'_, T>,
        kept: Kept<'_, T>,
        dy: ArrayView3<'_, T>,
        dx: Option<ArrayViewMut3<'_, T>>,
        gradients: CellGradients<'_, T>,
        scratch: &mut [T],
    );
}

/// The fastest way over a sequence of f32 on an instruction set.
pub(super) fn plan(isa: Isa, recurrence: Recurrence) -> Box<dyn Cell<f32>> {
    Box::new(Sequence { isa, recurrence })
}

/// Whether products are of numbers rounded to bf16.
fn rounds(precision: Precision) -> bool {
    precision == Precision::Bf16
}

#[cfg(test)]
mod tests;
