//! `huber`: ½e² for |e| ≤ δ, else δ·(|e| − ½δ), as torch.nn.HuberLoss (Huber, 1964).

use super::elementwise::Elementwise;
use super::{Entry, Takes};
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "huber",
    about: "squared error near 0, absolute error beyond delta, for values",
    keys: "delta = 1",
    takes: Takes::Values,
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    settle: |component, _| Ok(component.clone()),
    build: |component| {
        let delta = component.parse::<Keys>()?.delta;
        if !(delta > 0.0 && delta.is_finite()) {
            return Err(component.error("delta", format!("is {delta}"), "give a positive number"));
        }
        Ok(Box::new(Elementwise(move |error: f64| {
            if error.abs() <= delta {
                (0.5 * error * error, error)
            } else {
                (delta * (error.abs() - 0.5 * delta), delta * error.signum())
            }
        })))
    },
    examples: &["", "delta = 0.3"],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default = "one")]
    delta: f64,
}

fn one() -> f64 {
    1.0
}
