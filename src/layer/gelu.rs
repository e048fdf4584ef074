//! `gelu`: y = x·Φ(x), exactly by erf or by the tanh form, as torch.nn.GELU (Hendrycks and Gimpel, 2016).

use super::registry::{Entry, Example, Place};
use super::{Backward, Forward, Layer, Op, Plan};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Approximate, Real};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "gelu",
    about: "y = x·Φ(x), Φ the normal distribution",
    keys: "approximate = \"none\" (or \"tanh\")",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "", input: Shape::Vector { n: 9 } },
        Example { keys: "approximate = \"tanh\"", input: Shape::Vector { n: 9 } },
    ],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    approximate: Approximate,
}

struct Gelu {
    plan: Plan,
    approximate: Approximate,
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    let op = Op::Gelu { tanh: keys.approximate == Approximate::Tanh };
    Ok(Box::new(Gelu { plan: Plan::new(op, place.input), approximate: keys.approximate }))
}

impl<T: Real> Layer<T> for Gelu {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        T::gelu(self.approximate, io.x, io.y);
    }

    /// dx = dy·(Φ(x) + x·Φ'(x)).
    fn backward(&mut self, io: Backward<'_, T>) {
        let Some(dx) = io.dx else { return };
        T::gelu_gradient(self.approximate, io.x, io.dy, dx);
    }
}
