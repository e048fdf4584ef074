//! `sigmoid`: y = 1 / (1 + e⁻ˣ), as torch.nn.Sigmoid.

use super::elementwise::FromOutput;
use super::registry::{Entry, Example, Place};
use super::{Layer, Op};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Real, isa::dispatch};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "sigmoid",
    about: "y = 1 / (1 + e⁻ˣ)",
    keys: "",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[Example { keys: "", input: Shape::Vector { n: 9 } }],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    component.parse::<Keys>()?;
    Ok(Box::new(FromOutput::<T>::new(Op::Sigmoid, place.input, forward, backward)))
}

fn forward<T: Real>(y: &mut [T]) {
    T::sigmoid_slice(y);
}

dispatch! {
    /// dx = dy·y·(1 - y).
    fn backward<T>(y: &[T], dy: &mut [T]) {
        for (dy, y) in dy.iter_mut().zip(y) {
            *dy *= *y * (T::ONE - *y);
        }
    }
}
