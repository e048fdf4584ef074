//! `cross_entropy`: −Σ w·q·log softmax(y), q the one-hot target smoothed by label_smoothing and w the classes' weights, as
//! torch.nn.CrossEntropyLoss. Of a mixed sample it is the two targets' losses in their shares.

use super::{Entry, Loss, Takes};
use crate::config::Component;
use crate::data::Targets;
use crate::error::Result;
use crate::kernel::Real;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "cross_entropy",
    about: "softmax and negative log-likelihood, for classes; a mean over the targets' weights, if there are any",
    keys: "label_smoothing = 0, weight (a number for each class, or \"balanced\": samples / (classes × samples of the class))",
    takes: Takes::Classes,
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    settle,
    build,
    examples: &[
        "",
        "label_smoothing = 0.1",
        "weight = [0.5, 2.0, 0.0, 1.5, 3.0]",
        "label_smoothing = 0.2\nweight = [0.5, 2.0, 0.0, 1.5, 3.0]",
    ],
};

/// Larger weights are a mistake.
const MOST_WEIGHT: f64 = 1e9;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    label_smoothing: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<Weight>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "is neither \"balanced\" nor a list of numbers")]
enum Weight {
    ByCount(ByCount),
    Given(Vec<f64>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ByCount {
    Balanced,
}

struct CrossEntropy {
    smoothing: f64,
    weights: Option<Vec<f64>>,
}

fn build(component: &Component) -> Result<Box<dyn Loss>> {
    let keys: Keys = component.parse()?;
    if !(0.0..1.0).contains(&keys.label_smoothing) {
        let what = format!("is {}", keys.label_smoothing);
        return Err(component.error("label_smoothing", what, "give a number from 0 up to, not including, 1"));
    }
    let weights = match keys.weight {
        None => None,
        Some(Weight::Given(weights)) => Some(weights),
        Some(Weight::ByCount(ByCount::Balanced)) => {
            let what = "is \"balanced\", which only a training part can tell";
            return Err(component.error("weight", what, "give a number for each class"));
        }
    };
    if let Some(bad) = weights.iter().flatten().find(|weight| !(0.0..=MOST_WEIGHT).contains(*weight)) {
        return Err(component.error("weight", format!("holds {bad}"), "give numbers of at least 0"));
    }
    Ok(Box::new(CrossEntropy { smoothing: keys.label_smoothing, weights }))
}

/// Balanced weights as numbers: each class weighs as much as any other.
fn settle(component: &Component, counts: &[u64]) -> Result<Component> {
    let mut keys: Keys = component.parse()?;
    if let (Some(Weight::ByCount(ByCount::Balanced)), false) = (&keys.weight, counts.is_empty()) {
        if let Some(class) = counts.iter().position(|count| *count == 0) {
            let what = format!("is \"balanced\", but class {class} (from 0) has no training sample");
            return Err(component.error("weight", what, "give a number for each class"));
        }
        let each = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        keys.weight = Some(Weight::Given(counts.iter().map(|count| each / *count as f64).collect()));
    }
    let table = toml::Table::try_from(&keys).map_err(|e| crate::error::Error::internal(&component.place, e))?;
    Ok(Component { table, ..component.clone() })
}

/// So many classes' powers are kept from the loss to the gradient.
const KEPT: usize = 64;

impl CrossEntropy {
    fn weight(&self, class: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |weights| weights[class])
    }

    /// Gradient: Σw·q·softmax(y) − w·q. In f64 inside, since a batch has few logits.
    fn compute<T: Real>(
        &self,
        m: usize,
        n: usize,
        y: &[T],
        targets: &Targets,
        share: f64,
        mut dy: Option<&mut [T]>,
    ) -> f64 {
        let background = self.smoothing / n as f64;
        let all: f64 = self.weights.as_ref().map_or(n as f64, |weights| weights[..n].iter().sum());
        let (mut total, mut powers) = (0.0, [0.0; KEPT]);
        for sample in 0..m {
            let logits = &y[sample * n..][..n];
            let target = targets.classes[sample] as usize;
            // The other target of a mixed sample, and what each of both counts.
            let own = targets.mixed.map_or(1.0, f64::from);
            let other = targets.mixed.map_or(target, |_| targets.others[sample] as usize);
            let hot = (1.0 - self.smoothing) * own * self.weight(target);
            let other_hot = (1.0 - self.smoothing) * (1.0 - own) * self.weight(other);
            let highest = logits.iter().fold(f64::NEG_INFINITY, |high, v| high.max(v.to_f64()));
            let power = |i: usize| libm::exp(logits[i].to_f64() - highest);
            powers[..n.min(KEPT)].iter_mut().enumerate().for_each(|(i, kept)| *kept = power(i));
            let sum = powers[..n.min(KEPT)].iter().sum::<f64>() + (KEPT..n).map(power).sum::<f64>();
            let power = |i: usize| if i < KEPT { powers[i] } else { power(i) };
            let log_sum = highest + libm::log(sum);
            total += hot * (log_sum - logits[target].to_f64());
            if targets.mixed.is_some() {
                total += other_hot * (log_sum - logits[other].to_f64());
            }
            if background > 0.0 {
                let logs = logits.iter().enumerate().map(|(i, v)| self.weight(i) * (log_sum - v.to_f64()));
                total += background * logs.sum::<f64>();
            }
            if let Some(dy) = &mut dy {
                let dy = &mut dy[sample * n..][..n];
                if self.weights.is_none() && targets.mixed.is_none() {
                    let expected = |i| background + if i == target { hot } else { 0.0 };
                    gradient(power, share, 1.0 / sum, expected, dy);
                } else {
                    let mass = hot + other_hot + background * all;
                    let at = |i, class, hot| if i == class { hot } else { 0.0 };
                    let expected = |i| background * self.weight(i) + at(i, target, hot) + at(i, other, other_hot);
                    gradient(power, share, mass / sum, expected, dy);
                }
            }
        }
        total * share
    }
}

/// dy = share · (scale · power − expected).
fn gradient<T: Real>(
    power: impl Fn(usize) -> f64,
    share: f64,
    scale: f64,
    expected: impl Fn(usize) -> f64,
    dy: &mut [T],
) {
    for (i, dy) in dy.iter_mut().enumerate() {
        *dy = T::of(share * (scale * power(i) - expected(i)));
    }
}

impl Loss for CrossEntropy {
    fn class_weights(&self) -> Option<&[f64]> {
        self.weights.as_deref()
    }

    fn evaluate(&self, m: usize, n: usize, y: &[f32], targets: &Targets, share: f64, dy: Option<&mut [f32]>) -> f64 {
        self.compute(m, n, y, targets, share, dy)
    }

    fn evaluate_f64(
        &self,
        m: usize,
        n: usize,
        y: &[f64],
        targets: &Targets,
        share: f64,
        dy: Option<&mut [f64]>,
    ) -> f64 {
        self.compute(m, n, y, targets, share, dy)
    }
}
