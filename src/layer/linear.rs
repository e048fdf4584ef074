//! `linear`: y = x·Wᵀ + b, with W (out, in) and b (out), as torch.nn.Linear; backward dW = dyᵀ·x, db = Σ dy, dx = dy·W.
//! On a sequence it is applied at every time step.

use super::registry::{Entry, Example, Place, check_size, wrong_input};
use super::{Backward, Forward, Initial, Layer, Op, Plan};
use crate::arena::Storage;
use crate::config::Component;
use crate::error::Result;
use crate::kernel::view::{rows, rows_mut};
use crate::kernel::{LinearMap, Product, Real, Weight};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::ops::Range;

pub(super) const ENTRY: Entry = Entry {
    name: "linear",
    about: "y = x·Wᵀ + b, on vectors or at each time step of a sequence",
    keys: "out_features, bias = true",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "out_features = 5", input: Shape::Vector { n: 7 } },
        Example { keys: "out_features = 34\nbias = false", input: Shape::Vector { n: 3 } },
        Example { keys: "out_features = 4", input: Shape::Sequence { t: 3, f: 2 } },
    ],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
}

fn yes() -> bool {
    true
}

struct Linear<T> {
    plan: Plan,
    inputs: usize,
    outputs: usize,
    /// Rows a sample has: time steps, or 1.
    steps: usize,
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    product: Box<dyn Product<T>>,
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    let outputs = keys.out_features;
    if outputs == 0 {
        return Err(component.error("out_features", "is 0", "give at least 1"));
    }
    let (inputs, steps, output) = match place.input {
        Shape::Vector { n } => (n, 1, Shape::Vector { n: outputs }),
        Shape::Sequence { t, f } => (f, t, Shape::Sequence { t, f: outputs }),
        Shape::Image { .. } => {
            let mend = "put { type = \"flatten\" } before it";
            return Err(wrong_input(component, place.input, "a vector or a sequence", mend));
        }
    };
    check_size::<T>(component, "out_features", &[outputs, inputs.max(place.m * steps)])?;
    let mut plan = Plan::new(Op::Linear, output);
    let bound = 1.0 / (inputs as f64).sqrt();
    let weight = plan.parameter("weight", &[outputs, inputs], Storage::Panels, Initial::Uniform(bound));
    let bias = keys.bias.then(|| plan.parameter("bias", &[outputs], Storage::Plain, Initial::Uniform(bound)));
    let product = T::linear(LinearMap { rows: place.m * steps, inputs, outputs }, place.precision);
    plan.take_needs(product.needs());
    plan.method = Some(product.method());
    plan.overwrites = true;
    plan.adds_once = product.adds_once();
    plan.flops = 2 * (steps * inputs * outputs) as u64;
    Ok(Box::new(Linear { plan, inputs, outputs, steps, weight, bias, product }))
}

impl<T: Real> Layer<T> for Linear<T> {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn prepare(&mut self, params: &[T], packed: &mut [T]) {
        self.product.prepare(&params[self.weight.clone()], packed);
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        let m = io.m * self.steps;
        let (x, y) = (rows(m, self.inputs, io.x), rows_mut(m, self.outputs, io.y));
        let weight = Weight { panels: &io.params[self.weight.clone()], packed: io.packed };
        let bias = self.bias.clone().map(|bias| &io.params[bias]);
        self.product.forward(x, weight, bias, y, io.scratch);
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        let (m, add) = (io.m * self.steps, !io.fresh);
        let (x, dy) = (rows(m, self.inputs, io.x), rows(m, self.outputs, io.dy));
        let weight = Weight { panels: &io.params[self.weight.clone()], packed: io.packed };
        self.product.weight_gradient(x, dy, add, &mut io.dparams[self.weight.clone()], io.scratch);
        if let Some(bias) = self.bias.clone() {
            self.product.bias_gradient(dy, add, &mut io.dparams[bias]);
        }
        if let Some(dx) = io.dx {
            self.product.data_gradient(dy, weight, rows_mut(m, self.inputs, dx), io.scratch);
        }
    }
}
