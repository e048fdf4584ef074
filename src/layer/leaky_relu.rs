//! `leaky_relu`: y = x for x ≥ 0 and slope·x below, as torch.nn.LeakyReLU.

use super::elementwise::FromOutput;
use super::registry::{Entry, Example, Place};
use super::{Layer, Op};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Real, isa::dispatch};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "leaky_relu",
    about: "y = x where x ≥ 0, else negative_slope·x",
    keys: "negative_slope = 0.01",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "", input: Shape::Vector { n: 9 } },
        Example { keys: "negative_slope = 0.3", input: Shape::Sequence { t: 3, f: 4 } },
    ],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default = "default_slope")]
    negative_slope: f64,
}

fn default_slope() -> f64 {
    0.01
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    // The sign of y must tell the sign of x.
    if !(0.0..f64::INFINITY).contains(&keys.negative_slope) {
        let what = format!("is {}", keys.negative_slope);
        return Err(component.error("negative_slope", what, "give a slope of 0 or more"));
    }
    let slope = T::of(keys.negative_slope);
    Ok(Box::new(FromOutput::<T>::new(
        Op::LeakyRelu { slope: keys.negative_slope },
        place.input,
        move |y| forward(y, slope),
        move |y, dy| backward(y, dy, slope),
    )))
}

dispatch! {
    fn forward<T>(y: &mut [T], slope: T) {
        for y in y {
            *y = if *y < T::ZERO { slope * *y } else { *y };
        }
    }
}

dispatch! {
    fn backward<T>(y: &[T], dy: &mut [T], slope: T) {
        for (dy, y) in dy.iter_mut().zip(y) {
            *dy = if *y > T::ZERO { *dy } else { slope * *dy };
        }
    }
}
