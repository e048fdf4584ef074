//! `lstm`: stacked long short-term memory, as torch.nn.LSTM with batch_first (Hochreiter and Schmidhuber, 1997).
//!
//! With gates i, f, g, o from W_ih·x_t + b_ih + W_hh·h_{t-1} + b_hh: c_t = σ(f)·c_{t-1} + σ(i)·tanh(g),
//! h_t = σ(o)·tanh(c_t).

use super::Layer;
use super::recurrent::{self, Keys};
use super::registry::{Entry, Example, Place};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Kind, Real};
use crate::shape::Shape;

pub(super) const ENTRY: Entry = Entry {
    name: "lstm",
    about: "stacked LSTM over a sequence; gives the last hidden state (both directions' last ones side by side)",
    keys: "hidden_size, num_layers = 1, bias = true, dropout = 0 (between layers), bidirectional = false, \
           return_sequences = false (true: the hidden state of every step)",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "hidden_size = 3", input: Shape::Sequence { t: 4, f: 2 } },
        Example {
            keys: "hidden_size = 3\nnum_layers = 2\nreturn_sequences = true\nbias = false",
            input: Shape::Sequence { t: 3, f: 2 },
        },
        Example {
            keys: "hidden_size = 2\nnum_layers = 2\nbidirectional = true\ndropout = 0.5",
            input: Shape::Sequence { t: 3, f: 2 },
        },
        Example {
            keys: "hidden_size = 2\nbidirectional = true\nreturn_sequences = true",
            input: Shape::Sequence { t: 3, f: 3 },
        },
    ],
};

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    recurrent::build(Kind::Lstm, component, place)
}
