//! The losses and their gradients. A new one is a file here and a line in [`REGISTRY`].

mod cross_entropy;
mod elementwise;
mod huber;
mod mae;
mod mse;

use crate::config::Component;
use crate::data::{Targets, Task};
use crate::error::Result;
use crate::kernel::Real;

/// A loss: the mean over samples (and over elements, for values), as torch's default reduction.
pub trait Loss: Send {
    /// What a sample of each class counts, where they do not count alike. A batch's mean is then over the sum of its targets'
    /// weights.
    fn class_weights(&self) -> Option<&[f64]> {
        None
    }
    /// The loss of `m` outputs of `n` values, times `share` of a sample in the whole batch (1 / global samples, or 1 / the sum
    /// of their weights), and its gradient into `dy` (m, n). Summed over all micro-batches this is the global batch's mean.
    fn evaluate(&self, m: usize, n: usize, y: &[f32], targets: &Targets, share: f64, dy: Option<&mut [f32]>) -> f64;
    /// The same in f64, for the gradient check.
    fn evaluate_f64(&self, m: usize, n: usize, y: &[f64], targets: &Targets, share: f64, dy: Option<&mut [f64]>)
    -> f64;
}

/// What targets a loss takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// One class a sample.
    Classes,
    /// Real values.
    Values,
}

/// A kind of loss.
pub struct Entry {
    /// As in TOML.
    pub name: &'static str,
    /// One line: what it computes.
    pub about: &'static str,
    /// Its keys and defaults.
    pub keys: &'static str,
    /// Its targets.
    pub takes: Takes,
    /// Writes the defaults into the table.
    pub resolve: fn(&Component) -> Result<Component>,
    /// Writes out what depends on how many training samples each class has.
    pub settle: fn(&Component, &[u64]) -> Result<Component>,
    /// From its table.
    pub build: fn(&Component) -> Result<Box<dyn Loss>>,
    /// Keys for the gradient check.
    pub examples: &'static [&'static str],
}

/// All losses, by name.
pub const REGISTRY: &[Entry] = &[cross_entropy::ENTRY, huber::ENTRY, mae::ENTRY, mse::ENTRY];

/// The entry a component names.
pub fn find(component: &Component) -> Result<&'static Entry> {
    REGISTRY
        .iter()
        .find(|entry| entry.name == component.kind)
        .ok_or_else(|| component.unknown_kind("type", REGISTRY.iter().map(|entry| entry.name)))
}

/// Builds the loss and checks that it, the data's task and the network's `outputs` fit each other.
pub fn build(component: &Component, task: &Task, outputs: usize) -> Result<Box<dyn Loss>> {
    let entry = find(component)?;
    let (fits, has) = match task {
        Task::Classes(names) => (entry.takes == Takes::Classes, format!("{} classes", names.len())),
        Task::Values(n) => (entry.takes == Takes::Values, format!("{n} real values a sample")),
    };
    if !fits {
        let other = if entry.takes == Takes::Classes { "mse, mae or huber" } else { "cross_entropy" };
        return Err(component.error(
            "type",
            format!("{} does not fit the data: it has {has}", entry.name),
            format!("use {other}"),
        ));
    }
    let wants = match task {
        Task::Classes(names) => names.len(),
        Task::Values(n) => *n,
    };
    if outputs != wants {
        let what = format!("the network gives {outputs} outputs, but the data has {has}");
        let mend = format!("end the model with {{ type = \"linear\", out_features = {wants} }}");
        return Err(component.error("", what, mend));
    }
    let loss = (entry.build)(component)?;
    match loss.class_weights() {
        Some(weights) if weights.len() != wants => {
            let what = format!("has {} weights, but the data has {has}", weights.len());
            Err(component.error("weight", what, "give one for each class"))
        }
        _ => Ok(loss),
    }
}

/// The component with everything written out that depends on the training part, of whose classes `counts` tells the samples.
pub fn settled(component: &Component, counts: &[u64]) -> Result<Component> {
    (find(component)?.settle)(component, counts)
}

/// How many of the `m` outputs have their largest value at the target's class; of mixed targets each counts its share.
pub fn correct<T: Real>(m: usize, n: usize, y: &[T], targets: &Targets) -> f64 {
    let hits = |classes: &[u32]| {
        let hit = |(sample, class): &(usize, &u32)| largest(&y[sample * n..][..n]) == **class as usize;
        classes[..m].iter().enumerate().filter(hit).count() as f64
    };
    match targets.mixed.map(f64::from) {
        Some(share) => share * hits(&targets.classes) + (1.0 - share) * hits(&targets.others),
        None => hits(&targets.classes),
    }
}

/// Index of the largest value; the first of equals.
pub fn largest<T: Real>(y: &[T]) -> usize {
    (1..y.len()).fold(0, |best, i| if y[i] > y[best] { i } else { best })
}
