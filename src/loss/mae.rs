//! `mae`: the mean of |y − target|, as torch.nn.L1Loss.

use super::elementwise::Elementwise;
use super::{Entry, Takes};
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "mae",
    about: "mean absolute error, for values",
    keys: "",
    takes: Takes::Values,
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    settle: |component, _| Ok(component.clone()),
    build: |component| {
        component.parse::<Keys>()?;
        Ok(Box::new(Elementwise(|error: f64| (error.abs(), if error == 0.0 { 0.0 } else { error.signum() }))))
    },
    examples: &[""],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {}
