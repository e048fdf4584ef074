//! Optimizers: flat slices in, flat slices out. A new one is a file here and a line in [`REGISTRY`].

mod adam;
mod lamb;
mod lars;
pub mod schedule;
mod sgd;

pub use schedule::Schedule;

use crate::arena::{Layout, Slot};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::sum::squares;
use std::ops::Range;

/// Moments that an optimizer keeps, at most.
pub const MOST_SLOTS: usize = 2;

/// What one update works on: a part of the arena. All slices are laid out alike.
pub struct Update<'a> {
    /// Where the parameters lie in the whole arena.
    pub layout: &'a Layout,
    /// Where in the arena the slices begin; for an optimizer that [looks at whole tensors](Optimizer::whole_tensors) they
    /// hold the slots that begin there.
    pub first: usize,
    /// Parameters, updated.
    pub params: &'a mut [f32],
    /// The global batch's gradient; may be overwritten.
    pub grads: &'a mut [f32],
    /// One slice for each of [`Optimizer::slots`], the rest empty.
    pub moments: [&'a mut [f32]; MOST_SLOTS],
    /// The learning rate of this step.
    pub lr: f32,
    /// In place of the job's momentum, or beta1, where a schedule moves it.
    pub momentum: Option<f64>,
    /// Counted from 1.
    pub step: u64,
    /// Factor on the gradient: below 1 where it is clipped.
    pub grad_scale: f32,
}

/// The slots of `layout` that lie in the `len` elements from `first` on, with their ranges there.
fn slots_within(layout: &Layout, first: usize, len: usize) -> impl Iterator<Item = (&Slot, Range<usize>)> {
    let inside = move |slot: &&Slot| slot.range.start >= first && slot.range.end <= first + len;
    layout.slots().iter().filter(inside).map(move |slot| (slot, slot.range.start - first..slot.range.end - first))
}

/// An optimizer. The step cannot fail.
pub trait Optimizer: Send {
    /// Names of the moments it keeps.
    fn slots(&self) -> &'static [&'static str];
    /// The learning rate of the job.
    fn lr(&self) -> f64;
    /// Whether it has a momentum, or beta1, that a schedule may move.
    fn has_momentum(&self) -> bool {
        !self.slots().is_empty()
    }
    /// Whether it looks at a tensor as a whole, so that no tensor may be cut in parts.
    fn whole_tensors(&self) -> bool {
        false
    }
    /// One update; clipping happens in the same pass. Moments that become subnormal become 0: on some CPUs they would take
    /// five times as long, and no parameter feels them.
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

/// The L2 norm, by f64 sums of fixed blocks so that it does not depend on the instruction set.
pub fn norm(values: &[f32]) -> f64 {
    squares(values).sqrt()
}
