//! `relu`: y = max(x, 0), as torch.nn.ReLU.

use super::elementwise::FromOutput;
use super::registry::{Entry, Example, Place};
use super::{Layer, Op, Step};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Real, isa::dispatch};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "relu",
    about: "y = max(x, 0)",
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
    Ok(Box::new(FromOutput::<T>::new(Op::Relu, place.input, forward, backward).step(Step::Relu)))
}

dispatch! {
    fn forward<T>(y: &mut [T]) {
        for y in y {
            // Written so that NaN passes through, as in torch.
            *y = if *y < T::ZERO { T::ZERO } else { *y };
        }
    }
}

dispatch! {
    fn backward<T>(y: &[T], dy: &mut [T]) {
        for (dy, y) in dy.iter_mut().zip(y) {
            *dy = if *y > T::ZERO { *dy } else { T::ZERO };
        }
    }
}
