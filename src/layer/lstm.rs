//! `lstm`: stacked long short-term memory, as torch.nn.LSTM with batch_first (Hochreiter and Schmidhuber, 1997).
//!
//! With gates i, f, g, o from W_ih·x_t + b_ih + W_hh·h_{t-1} + b_hh: c_t = σ(f)·c_{t-1} + σ(i)·tanh(g),
//! h_t = σ(o)·tanh(c_t).

use super::registry::{Entry, Place};
use super::{Layer, recurrent};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{CellKind, Real};

pub(super) const ENTRY: Entry = recurrent::entry(
    "lstm",
    "stacked LSTM over a sequence; gives the last hidden state (both directions' last ones side by side)",
    build,
    build,
);

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    recurrent::build(CellKind::Lstm, component, place)
}
