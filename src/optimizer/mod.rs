//! Optimizers: flat slices in, flat slices out. A new one is a file here and a line in [`REGISTRY`].

mod adam;
mod lamb;
mod lars;
pub mod schedule;
mod sgd;

pub use schedule::Schedule;

use crate::arena::{Buffer, Layout};
use crate::config::Component;
use crate::error::Result;

/// What one update works on. All slices are laid out alike.
pub struct Update<'a> {
    /// Where the parameters lie.
    pub layout: &'a Layout,
    /// Parameters, updated.
    pub params: &'a mut [f32],
    /// The global batch's gradient; left at zero, ready for the next step.
    pub grads: &'a mut [f32],
    /// One buffer for each of [`Optimizer::slots`].
    pub moments: &'a mut [Buffer<f32>],
    /// The learning rate of this step.
    pub lr: f32,
    /// Counted from 1.
    pub step: u64,
    /// Factor on the gradient: below 1 where it is clipped.
    pub grad_scale: f32,
}

/// An optimizer. The step cannot fail.
pub trait Optimizer: Send {
    /// Names of the moments it keeps.
    fn slots(&self) -> &'static [&'static str];
    /// The learning rate of the job.
    fn lr(&self) -> f64;
    /// One update; clipping and zeroing the gradients happen in the same pass.
    fn update(&self, update: Update<'_>);
}

/// A kind of optimizer.
pub struct Entry {
    /// As in TOML.
    pub name: &'static str,
    /// One line: what it does.
    pub about: &'static str,
    /// Its keys and defaults, as in torch.optim.
    pub keys: &'static str,
    /// Writes the defaults into the table.
    pub resolve: fn(&Component) -> Result<Component>,
    /// From its table.
    pub build: fn(&Component) -> Result<Box<dyn Optimizer>>,
}

/// All optimizers, by name.
pub const REGISTRY: &[Entry] = &[adam::ENTRY, adam::ENTRY_W, lamb::ENTRY, lars::ENTRY, sgd::ENTRY];

/// The entry a component names.
pub fn find(component: &Component) -> Result<&'static Entry> {
    REGISTRY
        .iter()
        .find(|entry| entry.name == component.kind)
        .ok_or_else(|| component.unknown_kind("type", REGISTRY.iter().map(|entry| entry.name)))
}

/// Builds the optimizer a component names.
pub fn build(component: &Component) -> Result<Box<dyn Optimizer>> {
    (find(component)?.build)(component)
}

/// Checks that `value` lies in `low..high`.
fn within(component: &Component, key: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..high).contains(&value) {
        return Ok(());
    }
    let range = if high.is_finite() { format!("from {low} up to {high}") } else { format!("of at least {low}") };
    Err(component.error(key, format!("is {value}"), format!("give a number {range}")))
}

/// The L2 norm of a gradient, by f64 sums of fixed blocks so that it does not depend on the instruction set's width.
pub fn norm(grads: &[f32]) -> f64 {
    squares(grads).sqrt()
}

/// Σ v².
fn squares(values: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut total = 0.0f64;
    for block in values.chunks(4096) {
        let mut sums = [0.0f32; LANES];
        let chunks = block.chunks_exact(LANES);
        for (sum, v) in sums.iter_mut().zip(chunks.remainder()) {
            *sum += v * v;
        }
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += chunk[lane] * chunk[lane];
            }
        }
        total += sums.iter().map(|sum| f64::from(*sum)).sum::<f64>();
    }
    total
}
