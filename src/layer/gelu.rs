//! `gelu`: y = x·Φ(x), exactly by erf or by the tanh form, as torch.nn.GELU (Hendrycks and Gimpel, 2016).

use super::registry::{Entry, Example, Place};
use super::{Backward, Forward, Layer, Plan};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::Real;
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

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Approximate {
    #[default]
    None,
    Tanh,
}

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
    Ok(Box::new(Gelu { plan: Plan::new(place.input), approximate: keys.approximate }))
}

/// √(2/π) and the cubic's factor in the tanh form.
const TANH_SCALE: f64 = 0.797_884_560_802_865_4;
const TANH_CUBE: f64 = 0.044_715;

/// Φ(x) and its derivative.
fn cdf(x: f64) -> (f64, f64) {
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let erf = libm::erf(x * std::f64::consts::FRAC_1_SQRT_2);
    (0.5 * (1.0 + erf), density)
}

/// The tanh form of Φ(x) and its derivative.
fn cdf_tanh(x: f64) -> (f64, f64) {
    let t = (TANH_SCALE * (x + TANH_CUBE * x * x * x)).tanh();
    (0.5 * (1.0 + t), 0.5 * (1.0 - t * t) * TANH_SCALE * (1.0 + 3.0 * TANH_CUBE * x * x))
}

impl Gelu {
    fn cdf(&self, x: f64) -> (f64, f64) {
        match self.approximate {
            Approximate::None => cdf(x),
            Approximate::Tanh => cdf_tanh(x),
        }
    }
}

impl<T: Real> Layer<T> for Gelu {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        for (y, x) in io.y.iter_mut().zip(io.x) {
            *y = T::of(x.to_f64() * self.cdf(x.to_f64()).0);
        }
    }

    /// dx = dy·(Φ(x) + x·Φ'(x)).
    fn backward(&mut self, io: Backward<'_, T>) {
        let Some(dx) = io.dx else { return };
        for ((dx, dy), x) in dx.iter_mut().zip(&*io.dy).zip(io.x) {
            let (value, slope) = self.cdf(x.to_f64());
            *dx = *dy * T::of(value + x.to_f64() * slope);
        }
    }
}
