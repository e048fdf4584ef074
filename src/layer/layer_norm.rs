//! `layer_norm`: y = γ·(x − μ)/√(σ² + ε) + β within each sample, as torch.nn.LayerNorm (Ba, Kiros and Hinton, 2016):
//! over a vector, over the features of each time step, or over a whole image.

use super::registry::{Entry, Example, Place};
use super::{Backward, Forward, Initial, Layer, Op, Plan};
use crate::arena::Storage;
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Real, isa::dispatch};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::ops::Range;

pub(super) const ENTRY: Entry = Entry {
    name: "layer_norm",
    about: "normalises a vector, each time step of a sequence, or a whole image",
    keys: "eps = 1e-5, elementwise_affine = true",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "", input: Shape::Vector { n: 5 } },
        Example { keys: "", input: Shape::Sequence { t: 3, f: 4 } },
        Example { keys: "", input: Shape::Image { c: 2, h: 3, w: 2 } },
        Example { keys: "elementwise_affine = false", input: Shape::Vector { n: 6 } },
    ],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default = "default_eps")]
    eps: f64,
    #[serde(default = "yes")]
    elementwise_affine: bool,
}

fn default_eps() -> f64 {
    1e-5
}

fn yes() -> bool {
    true
}

struct LayerNorm {
    plan: Plan,
    /// Elements normalised together.
    width: usize,
    eps: f64,
    weight: Option<Range<usize>>,
    bias: Option<Range<usize>>,
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    if keys.eps.is_nan() || keys.eps <= 0.0 {
        return Err(component.error("eps", format!("is {}", keys.eps), "give a small positive number"));
    }
    let (shape, storage, rows) = match place.input {
        Shape::Image { c, h, w } => (vec![c, h, w], Storage::ChannelsLast, 1),
        Shape::Sequence { t, f } => (vec![f], Storage::Plain, t),
        Shape::Vector { n } => (vec![n], Storage::Plain, 1),
    };
    let mut plan = Plan::new(Op::LayerNorm { eps: keys.eps }, place.input);
    let mut parameter = |name: &str, value: f64| {
        keys.elementwise_affine.then(|| plan.parameter(name, &shape, storage, Initial::Constant(value)))
    };
    let (weight, bias) = (parameter("weight", 1.0), parameter("bias", 0.0));
    // Mean and 1/σ of every row.
    plan.cache = 2 * place.m * rows;
    Ok(Box::new(LayerNorm { plan, width: shape.iter().product(), eps: keys.eps, weight, bias }))
}

/// Accumulators of a sum.
const LANES: usize = 16;
/// Elements that are summed in T before their sum goes into an f64: long sums stay exact.
const BLOCK: usize = 64 * LANES;

dispatch! {
    /// Sums of x and, about `mean`, of squares.
    fn row_sums<T>(x: &[T], mean: T) -> (T, T) {
        let mut totals = (0.0, 0.0);
        for x in x.chunks(BLOCK) {
            let (mut sums, mut squares) = ([T::ZERO; LANES], [T::ZERO; LANES]);
            let chunks = x.chunks_exact(LANES);
            for (lane, x) in chunks.remainder().iter().enumerate() {
                sums[lane] += *x;
                squares[lane] += (*x - mean) * (*x - mean);
            }
            for chunk in chunks {
                for lane in 0..LANES {
                    sums[lane] += chunk[lane];
                    squares[lane] += (chunk[lane] - mean) * (chunk[lane] - mean);
                }
            }
            totals.0 += sums.into_iter().sum::<T>().to_f64();
            totals.1 += squares.into_iter().sum::<T>().to_f64();
        }
        (T::of(totals.0), T::of(totals.1))
    }
}

dispatch! {
    /// Sums of dy and of dy·(x − mean).
    fn gradient_sums<T>(x: &[T], dy: &[T], mean: T) -> (T, T) {
        let mut totals = (0.0, 0.0);
        for (x, dy) in x.chunks(BLOCK).zip(dy.chunks(BLOCK)) {
            let (mut sums, mut scaled) = ([T::ZERO; LANES], [T::ZERO; LANES]);
            let (xs, dys) = (x.chunks_exact(LANES), dy.chunks_exact(LANES));
            for (lane, (x, dy)) in xs.remainder().iter().zip(dys.remainder()).enumerate() {
                sums[lane] += *dy;
                scaled[lane] += *dy * (*x - mean);
            }
            for (x, dy) in xs.zip(dys) {
                for lane in 0..LANES {
                    sums[lane] += dy[lane];
                    scaled[lane] += dy[lane] * (x[lane] - mean);
                }
            }
            totals.0 += sums.into_iter().sum::<T>().to_f64();
            totals.1 += scaled.into_iter().sum::<T>().to_f64();
        }
        (T::of(totals.0), T::of(totals.1))
    }
}

impl<T: Real> Layer<T> for LayerNorm {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        let n = T::of(self.width as f64);
        let rows = io.x.chunks_exact(self.width).zip(io.y.chunks_exact_mut(self.width));
        for ((x, y), kept) in rows.zip(io.cache.chunks_exact_mut(2)) {
            let mean = row_sums(x, T::ZERO).0 / n;
            let rstd = T::ONE / (row_sums(x, mean).1 / n + T::of(self.eps)).sqrt();
            kept.copy_from_slice(&[mean, rstd]);
            for (x, y) in x.iter().zip(&mut *y) {
                *y = (*x - mean) * rstd;
            }
            if let (Some(weight), Some(bias)) = (self.weight.clone(), self.bias.clone()) {
                for ((y, weight), bias) in y.iter_mut().zip(&io.params[weight]).zip(&io.params[bias]) {
                    *y = *weight * *y + *bias;
                }
            }
        }
    }

    /// With g = γ·dy: dx = rstd·(g − mean(g) − x̂·mean(g·x̂)).
    fn backward(&mut self, mut io: Backward<'_, T>) {
        let n = T::of(self.width as f64);
        for (row, (x, kept)) in io.x.chunks_exact(self.width).zip(io.cache.chunks_exact(2)).enumerate() {
            let (mean, rstd) = (kept[0], kept[1]);
            let dy = &mut io.dy[row * self.width..][..self.width];
            if let (Some(weight), Some(bias)) = (self.weight.clone(), self.bias.clone()) {
                for i in 0..self.width {
                    io.dparams[weight.start + i] += dy[i] * (x[i] - mean) * rstd;
                    io.dparams[bias.start + i] += dy[i];
                    dy[i] *= io.params[weight.start + i];
                }
            }
            let Some(dx) = &mut io.dx else { continue };
            let dx = &mut dx[row * self.width..][..self.width];
            let (sum, scaled) = gradient_sums(x, dy, mean);
            let sum_scaled = scaled * rstd;
            for i in 0..self.width {
                dx[i] = rstd * (dy[i] - sum / n - (x[i] - mean) * rstd * sum_scaled / n);
            }
        }
    }
}
