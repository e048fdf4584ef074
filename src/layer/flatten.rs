//! `flatten`: one vector a sample in torch's order (channels, rows, columns), as torch.nn.Flatten.

use super::registry::{Entry, Example, Place};
use super::{Backward, Forward, Layer, Op, Plan};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::Real;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "flatten",
    about: "an image or a sequence as one vector",
    keys: "",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "", input: Shape::Image { c: 3, h: 2, w: 4 } },
        Example { keys: "", input: Shape::Sequence { t: 3, f: 2 } },
    ],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {}

struct Flatten {
    plan: Plan,
    channels: usize,
    pixels: usize,
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    component.parse::<Keys>()?;
    let mut plan = Plan::new(Op::Flatten, Shape::Vector { n: place.input.len() });
    let (channels, pixels) = match place.input {
        Shape::Image { c, h, w } if c > 1 && h * w > 1 => (c, h * w),
        // Nothing moves.
        _ => (1, place.input.len()),
    };
    plan.in_place = channels == 1;
    Ok(Box::new(Flatten { plan, channels, pixels }))
}

impl<T: Real> Layer<T> for Flatten {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        if self.channels > 1 {
            T::transpose(self.pixels, self.channels, io.x, io.y);
        }
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        if let Some(dx) = io.dx {
            T::transpose(self.channels, self.pixels, io.dy, dx);
        }
    }
}
