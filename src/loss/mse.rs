//! `mse`: the mean of (y − target)², as torch.nn.MSELoss.

use super::elementwise::Elementwise;
use super::{Entry, Takes};
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "mse",
    about: "mean squared error, for values",
    keys: "",
    takes: Takes::Values,
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    settle: |component, _| Ok(component.clone()),
    build: |component| {
        component.parse::<Keys>()?;
        Ok(Box::new(Elementwise(|error: f64| (error * error, 2.0 * error))))
    },
    examples: &[""],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {}
