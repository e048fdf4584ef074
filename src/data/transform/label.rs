//! Targets in memory: class indices, or raw values with the unit that normalises them.

use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::data::transform::normalize::{Scaling, Summary};
use crate::data::transform::split::{Selection, learnt};
use crate::data::transform::window::{Series, Windows};
use crate::data::{Input, Part, Targets, Task, Unit};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::rc::Rc;

/// The targets of both parts. A part with fewer than its samples has unknown ones (files of inputs only).
pub(in crate::data) enum Labels {
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
        /// To what the network should give, for each of the n.
        units: Vec<Unit>,
    },
    /// Later rows of the series that the samples are windows of, each series with units of its own.
    Windows(Rc<Windows>),
}

impl Labels {
    /// Values, each of the n normalised as the job's inputs are if that is by a fit over the training part.
    pub fn values(
        config: &DataConfig,
        normalize: &Normalize,
        n: usize,
        of: [Vec<f64>; 2],
        selection: &Option<Selection>,
    ) -> Result<Self> {
        let fitted = matches!(
            normalize,
            Normalize::Named(NormalizeMethod::Standard) | Normalize::Named(NormalizeMethod::Minmax)
        );
        let units = if fitted {
            let known = learnt(selection, &of[0], n);
            let column = |c: usize| known.iter().skip(c).step_by(n).map(|&v| (v, 1.0));
            let summaries = || Ok((0..n).map(|c| Summary::of(column(c))).collect());
            let scaling = Scaling::new(config, normalize, n, summaries)?;
            scaling.std.iter().zip(&scaling.mean).map(|(&scale, &offset)| Unit { scale, offset }).collect()
        } else {
            vec![Unit::IDENTITY; n]
        };
        Ok(Labels::Values { n, of, units })
    }

    /// What they are.
    pub fn task(&self) -> Task {
        match self {
            Labels::Classes { names, .. } => Task::Classes(names.clone()),
            Labels::Values { n, .. } => Task::Values(*n),
            Labels::Windows(windows) => Task::Values(windows.columns.targets.len()),
        }
    }

    /// Targets of the kind that a network was trained for, all unknown.
    pub fn unknown(input: &Input) -> Self {
        if !input.classes.is_empty() {
            Labels::Classes { names: input.classes.clone(), of: Default::default() }
        } else {
            Labels::Values { n: input.units.len(), of: Default::default(), units: input.units.clone() }
        }
    }

    /// Appends one sample's target: NaN for an unknown value, nothing for an unknown class.
    pub fn fill(&self, part: Part, sample: usize, targets: &mut Targets) {
        match self {
            Labels::Classes { of, .. } => targets.classes.extend(of[part as usize].get(sample)),
            Labels::Values { n, of, units } => match of[part as usize].get(sample * n..(sample + 1) * n) {
                Some(values) => {
                    targets.values.extend(values.iter().zip(units).map(|(&value, unit)| unit.normalize(value)));
                }
                None => targets.values.extend((0..*n).map(|_| f32::NAN)),
            },
            Labels::Windows(windows) => windows.fill_targets(part, sample, targets),
        }
    }

    /// One of the true values of a sample, where it is known.
    pub fn value(&self, part: Part, sample: usize, output: usize) -> Option<f64> {
        match self {
            Labels::Classes { .. } => None,
            Labels::Values { n, of, .. } => {
                of[part as usize].get(sample * n + output).copied().filter(|value| !value.is_nan())
            }
            Labels::Windows(windows) => windows.target_value(part, sample, output),
        }
    }

    /// From what the network gives as one of a sample's values to the data's unit; the identity for classes.
    pub fn unit(&self, part: Part, sample: usize, output: usize) -> Unit {
        match self {
            Labels::Classes { .. } => Unit::IDENTITY,
            Labels::Values { units, .. } => units[output],
            Labels::Windows(windows) => windows.unit(part, sample, windows.columns.targets[output]),
        }
    }

    /// One of the values that a window ends with.
    pub fn last_value(&self, part: Part, sample: usize, output: usize) -> Option<f64> {
        match self {
            Labels::Windows(windows) => Some(windows.last_value(part, sample, output)),
            _ => None,
        }
    }

    /// The series that samples are windows of.
    pub fn series(&self) -> &[Series] {
        match self {
            Labels::Windows(windows) => &windows.series,
            _ => &[],
        }
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        match self {
            Labels::Classes { of, .. } => of.iter().map(|v| size_of_val(&v[..])).sum(),
            Labels::Values { of, .. } => of.iter().map(|v| size_of_val(&v[..])).sum(),
            // They are the samples, too.
            Labels::Windows(_) => 0,
        }
    }
}

/// More classes than this are a mistake, such as an id taken for a class.
pub(in crate::data) const MOST_CLASSES: usize = 1 << 20;

/// The classes that a job names, where the data need not hold each.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "is neither a number of classes nor a list of their names")]
pub(in crate::data) enum Classes {
    /// So many, called by their numbers.
    Count(usize),
    /// Called so.
    Names(Vec<String>),
}

impl Classes {
    /// For the documentation.
    pub const KEY: (&str, &str) =
        ("classes", "how many classes there are, or a list of their names (those in the file)");

    /// Their names. Errors: none, too many, one twice.
    pub fn names(&self, config: &DataConfig) -> Result<Vec<String>> {
        let error = |what: String, mend: &str| Err(config.source.error("classes", what, mend));
        let names = match self {
            Classes::Count(count) if *count > MOST_CLASSES => Vec::new(),
            Classes::Count(count) => numbered(*count),
            Classes::Names(names) => names.clone(),
        };
        if names.is_empty() || names.len() > MOST_CLASSES {
            return error("no usable number of classes".into(), "give 1 to 1048576 classes, or leave the key out");
        }
        let mut seen = HashSet::new();
        match names.iter().find(|name| !seen.insert(name.as_str())) {
            Some(twice) => error(format!("class \"{twice}\" is there twice"), "give each class a name of its own"),
            None => Ok(names),
        }
    }
}

/// Without a word of the job, so many classes may be seen in any data: a few samples cannot ask for memory for a million.
const MOST_UNTOLD: usize = 1 << 16;

/// The classes from 0 to the highest of these indices, by their numbers.
///
/// # Errors
/// Some far above the number of samples.
pub(in crate::data) fn seen(parts: [&[u32]; 2], place: &str) -> Result<Vec<String>> {
    let samples = parts.iter().map(|part| part.len()).sum::<usize>();
    let most = parts.iter().flat_map(|part| part.iter()).max().map_or(0, |&most| most as usize + 1);
    if most > samples.max(MOST_UNTOLD) {
        let what = format!("class {}, and {samples} samples", most - 1);
        return Err(Error::data(place, what, "correct it, or set data.classes to the number of classes"));
    }
    Ok(numbered(most))
}

/// Names for classes that have none: `0`, `1`, ....
pub(in crate::data) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}
