//! `linear`: y = x·Wᵀ + b, with W (out, in) and b (out), as torch.nn.Linear.
//! On a sequence it is applied at every time step.

use super::registry::{Entry, Example, Place, check_size, wrong_input};
use super::{Backward, Forward, Initial, Layer, Plan};
use crate::arena::Storage;
use crate::config::{Component, Precision};
use crate::error::Result;
use crate::kernel::{Init, OUTER_ROWS, Real, bf16_scratch_len, panels_len};
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

/// Weights up to this many elements are transposed once a step for dx; larger ones are read as they lie, since every rank
/// would transpose all of them, and memory would be the limit.
const SMALL: usize = 1 << 17;

fn small(inputs: usize, outputs: usize) -> bool {
    inputs * outputs <= SMALL
}

struct Linear {
    plan: Plan,
    inputs: usize,
    outputs: usize,
    /// Rows a sample has: time steps, or 1.
    steps: usize,
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    /// Whether it multiplies in bf16.
    bf16: bool,
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
    let mut plan = Plan::new(output);
    let bound = 1.0 / (inputs as f64).sqrt();
    let weight = plan.parameter("weight", &[outputs, inputs], Storage::Panels, Initial::Uniform(bound));
    let bias = keys.bias.then(|| plan.parameter("bias", &[outputs], Storage::Plain, Initial::Uniform(bound)));
    let bf16 = place.precision == Precision::Bf16;
    if bf16 {
        plan.packed = T::bf16_len(inputs, outputs) + T::bf16_len(outputs, inputs);
        plan.scratch = bf16_scratch_len(place.m * steps, inputs, outputs);
    } else if small(inputs, outputs) {
        plan.packed = panels_len(outputs, inputs);
    } else {
        plan.scratch = T::product_transposed_scratch(outputs);
    }
    plan.overwrites = true;
    plan.adds_once = place.m * steps <= OUTER_ROWS;
    plan.scratch = plan.scratch.max(outputs);
    plan.flops = 2 * (steps * inputs * outputs) as u64;
    Ok(Box::new(Linear { plan, inputs, outputs, steps, weight, bias, bf16 }))
}

impl<T: Real> Layer<T> for Linear {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn prepare(&mut self, params: &[T], packed: &mut [T]) {
        let (k, n, weight) = (self.inputs, self.outputs, &params[self.weight.clone()]);
        if self.bf16 {
            let (forward, backward) = packed.split_at_mut(T::bf16_len(k, n));
            T::pack_bf16(k, n, weight, forward, backward);
        } else if small(k, n) {
            T::transpose_panels(k, n, weight, packed);
        }
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        let (rows, k, n) = (io.m * self.steps, self.inputs, self.outputs);
        let init = self.bias.clone().map_or(Init::Zero, |bias| Init::Bias(&io.params[bias]));
        if self.bf16 {
            T::product_bf16(rows, k, n, io.x, k, io.packed, init, io.y, n, io.scratch);
        } else {
            T::product(rows, k, n, io.x, k, &io.params[self.weight.clone()], init, io.y, n);
        }
    }

    /// dW += dyᵀ·x, db += column sums of dy (both = where fresh), dx = dy·W.
    fn backward(&mut self, mut io: Backward<'_, T>) {
        let (rows, k, n) = (io.m * self.steps, self.inputs, self.outputs);
        let (add, dweight) = (!io.fresh, &mut io.dparams[self.weight.clone()]);
        if self.bf16 {
            T::outer_bf16(rows, k, n, io.x, k, io.dy, n, add, dweight, io.scratch);
        } else {
            T::outer(rows, k, n, io.x, k, io.dy, n, add, dweight);
        }
        if let Some(bias) = self.bias.clone() {
            let (dbias, sums) = (&mut io.dparams[bias], &mut io.scratch[..n]);
            sums.fill(T::ZERO);
            T::column_sums(rows, n, io.dy, n, sums);
            for (dbias, sum) in dbias.iter_mut().zip(sums) {
                *dbias = if add { *dbias + *sum } else { *sum };
            }
        }
        if let (Some(dx), true) = (&mut io.dx, self.bf16) {
            let backward = &io.packed[T::bf16_len(k, n)..];
            T::product_bf16(rows, n, k, io.dy, n, backward, Init::Zero, dx, k, io.scratch);
        } else if let (Some(dx), true) = (&mut io.dx, small(k, n)) {
            T::product(rows, n, k, io.dy, n, io.packed, Init::Zero, dx, k);
        } else if let Some(dx) = io.dx {
            T::product_transposed(rows, n, k, io.dy, &io.params[self.weight.clone()], dx, io.scratch);
        }
    }
}
