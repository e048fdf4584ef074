//! `gru`: stacked gated recurrent units, as torch.nn.GRU with batch_first (Cho and others, 2014).
//!
//! r = σ(W_ir·x_t + b_ir + W_hr·h_{t-1} + b_hr), z likewise, n = tanh(W_in·x_t + b_in + r·(W_hn·h_{t-1} + b_hn)),
//! h_t = (1 - z)·n + z·h_{t-1}.

use super::registry::{Entry, Place};
use super::{Layer, recurrent};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{CellKind, Real};

pub(super) const ENTRY: Entry = recurrent::entry(
    "gru",
    "stacked GRU over a sequence; gives the last hidden state (both directions' last ones side by side)",
    build,
    build,
);

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    recurrent::build(CellKind::Gru, component, place)
}
