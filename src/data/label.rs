//! Targets in memory: class indices, or raw values with the unit that normalises them.

use super::normalize::{Scaling, Summary};
use super::{Part, Targets, Task, Unit};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::error::Result;

/// The targets of both parts. A part with fewer than its samples has unknown ones (files of inputs only).
pub(super) enum Labels {
    /// (N) class indices.
    Classes {
        /// The classes.
        names: Vec<String>,
        /// Training and test part.
        of: [Vec<u32>; 2],
    },
    /// (N, n) values in the data's unit.
    Values {
        /// Values a sample.
        n: usize,
        /// Training and test part.
        of: [Vec<f64>; 2],
        /// To what the network should give.
        unit: Unit,
    },
    /// One value a sample, which the windows of a series know themselves.
    InWindows,
}

impl Labels {
    /// Values, normalised as the job's inputs are if that is by a fit over the training part.
    pub fn values(config: &DataConfig, normalize: &Normalize, n: usize, of: [Vec<f64>; 2]) -> Result<Self> {
        let fitted = matches!(
            normalize,
            Normalize::Named(NormalizeMethod::Standard) | Normalize::Named(NormalizeMethod::Minmax)
        );
        let unit = if fitted {
            let summary = || Ok(vec![Summary::of(of[0].iter().map(|&v| (v, 1.0)))]);
            let scaling = Scaling::new(config, normalize, 1, summary)?;
            Unit { scale: scaling.std[0], offset: scaling.mean[0] }
        } else {
            Unit::IDENTITY
        };
        Ok(Labels::Values { n, of, unit })
    }

    /// What they are.
    pub fn task(&self) -> Task {
        match self {
            Labels::Classes { names, .. } => Task::Classes(names.clone()),
            Labels::Values { n, .. } => Task::Values(*n),
            Labels::InWindows => Task::Values(1),
        }
    }

    /// The same kind of targets, all unknown.
    pub fn unknown(&self) -> Self {
        match self {
            Labels::Classes { names, .. } => Labels::Classes { names: names.clone(), of: Default::default() },
            Labels::Values { n, unit, .. } => Labels::Values { n: *n, of: Default::default(), unit: *unit },
            Labels::InWindows => Labels::InWindows,
        }
    }

    /// Appends one sample's target: NaN for an unknown value, nothing for an unknown class.
    pub fn fill(&self, part: Part, sample: usize, targets: &mut Targets) {
        match self {
            Labels::Classes { of, .. } => targets.classes.extend(of[part as usize].get(sample)),
            Labels::Values { n, of, unit } => match of[part as usize].get(sample * n..(sample + 1) * n) {
                Some(values) => targets.values.extend(values.iter().map(|&value| unit.normalize(value))),
                None => targets.values.extend((0..*n).map(|_| f32::NAN)),
            },
            Labels::InWindows => {}
        }
    }

    /// The true value of a sample with one.
    pub fn value(&self, part: Part, sample: usize) -> Option<f64> {
        match self {
            Labels::Values { n: 1, of, .. } => of[part as usize].get(sample).copied(),
            _ => None,
        }
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        match self {
            Labels::Classes { of, .. } => of.iter().map(|v| size_of_val(&v[..])).sum(),
            Labels::Values { of, .. } => of.iter().map(|v| size_of_val(&v[..])).sum(),
            Labels::InWindows => 0,
        }
    }
}

/// Names for classes that have none: `0`, `1`, ....
pub(super) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}
