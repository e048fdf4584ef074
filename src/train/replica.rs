//! The one copy of parameters, state and moments that the ranks of a host share.

use crate::arena::Layout;
use crate::comm::{Host, Shared};
use crate::error::Result;
use crate::kernel::sum::BLOCK;
use crate::optimizer::{MOST_SLOTS, Optimizer, Update};
use crate::reduction::Crossing;
use crate::shard::own;
use std::ops::Range;

/// What training changes. All ranks of a host read it, and update it together.
pub struct Replica {
    /// The parameters.
    pub params: Shared<f32>,
    /// The state buffers.
    pub state: Shared<f32>,
    /// The optimizer's moments, one buffer a slot.
    pub moments: Vec<Shared<f32>>,
    /// The part of the parameters that this rank updates where that waits for the whole sum.
    part: Range<usize>,
    crossing: Crossing<f32>,
}

/// An update under way: each piece by one rank of the host, whose others keep off until all have waited for each other.
pub(super) struct Updating<'a> {
    optimizer: &'a dyn Optimizer,
    layout: &'a Layout,
    lr: f32,
    momentum: Option<f64>,
    step: u64,
    params: &'a mut Shared<f32>,
    moments: &'a mut [Shared<f32>],
}

impl Updating<'_> {
    /// Updates the parameters at `range` by `scale` times their gradient: a block that [`Exchange::sum`] handed to this rank, or
    /// its part after that.
    pub fn update(&mut self, range: Range<usize>, grads: &mut [f32], scale: f32) {
        let mut moments: [&mut [f32]; MOST_SLOTS] = Default::default();
        for (piece, moment) in moments.iter_mut().zip(&mut *self.moments) {
            // SAFETY: the piece is this rank's, as `Updating` demands.
            *piece = unsafe { moment.part_mut(range.clone()) };
        }
        self.optimizer.update(Update {
            layout: self.layout,
            first: range.start,
            // SAFETY: as above.
            params: unsafe { self.params.part_mut(range) },
            grads,
            moments,
            lr: self.lr,
            momentum: self.momentum,
            step: self.step,
            grad_scale: scale,
        });
    }
}

impl Replica {
    /// Zeros. With `whole_tensors` no slot of `layout` is cut.
    ///
    /// # Errors
    /// The host has no memory to share for them.
    pub fn build(host: &dyn Host, layout: &Layout, state: usize, slots: usize, whole_tensors: bool) -> Result<Self> {
        let len = layout.len();
        let part = if whole_tensors {
            tensors(layout, host.rank(), host.size())
        } else {
            let blocks = own(len.div_ceil(BLOCK), host.rank(), host.size());
            len.min(blocks.start * BLOCK)..len.min(blocks.end * BLOCK)
        };
        let moments = (0..slots).map(|_| host.share(len)).collect::<Result<_>>()?;
        Ok(Self { params: host.share(len)?, state: host.share(state)?, moments, part, crossing: Crossing::default() })
    }

    /// The part of the parameters that this rank updates where that waits for the whole sum.
    pub(super) fn part(&self) -> Range<usize> {
        self.part.clone()
    }

    /// The update of step `step`, counted from 1.
    pub(super) fn updating<'a>(
        &'a mut self,
        optimizer: &'a dyn Optimizer,
        layout: &'a Layout,
        lr: f32,
        momentum: Option<f64>,
        step: u64,
    ) -> Updating<'a> {
        Updating { optimizer, layout, lr, momentum, step, params: &mut self.params, moments: &mut self.moments }
    }

    /// The whole of the state, on the host's first rank; the others get nothing.
    pub(super) fn state_mut(&mut self, host: &dyn Host) -> &mut [f32] {
        let len = if host.rank() == 0 { self.state.len() } else { 0 };
        // SAFETY: one rank writes, and all wait after the update before they read.
        unsafe { self.state.part_mut(0..len) }
    }

    /// Everything becomes the sum over hosts of `weight` times what they have; the state is the same already.
    pub(super) fn average(&mut self, host: &dyn Host, weight: f32) {
        host.barrier();
        let (lane, lanes) = (host.rank(), host.lanes());
        for arena in std::iter::once(&mut self.params).chain(&mut self.moments).filter(|_| lane < lanes) {
            // SAFETY: until the barrier below each lane has its slice to itself.
            let slice = unsafe { arena.part_mut(own(arena.len(), lane, lanes)) };
            slice.iter_mut().for_each(|value| *value *= weight);
            self.crossing.sum(host, slice);
        }
        host.barrier();
    }

    /// Lets the host's first rank write everything: parameters, state, then each moment. All wait before and after.
    pub(super) fn write(&mut self, host: &dyn Host, write: impl FnOnce(&mut [&mut [f32]])) {
        host.barrier();
        if host.rank() == 0 {
            let arenas = [&mut self.params, &mut self.state].into_iter().chain(&mut self.moments);
            // SAFETY: the others wait at the barrier below.
            let mut arenas: Vec<&mut [f32]> = arenas.map(|arena| unsafe { arena.part_mut(0..arena.len()) }).collect();
            write(&mut arenas);
        }
        host.barrier();
    }
}

/// The elements of the slots that rank `rank` of `ranks` updates: contiguous slots, of about as many elements for each.
fn tensors(layout: &Layout, rank: usize, ranks: usize) -> Range<usize> {
    let bound = |rank: usize| {
        let target = layout.len() * rank / ranks;
        let after = layout.slots().iter().map(|slot| slot.range.start).find(|start| *start >= target);
        if rank == ranks { layout.len() } else { after.unwrap_or(layout.len()) }
    };
    bound(rank)..bound(rank + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Storage;

    #[test]
    fn whole_tensors_are_shared_out_once() {
        let mut layout = Layout::default();
        for (name, len) in [("a", 100), ("b", 3), ("c", 5000), ("d", 17), ("e", 600)] {
            layout.push("0", name, &[len], Storage::Plain);
        }
        for ranks in 1..9 {
            let parts: Vec<_> = (0..ranks).map(|rank| tensors(&layout, rank, ranks)).collect();
            assert!(parts[0].start == 0 && parts[ranks - 1].end == layout.len());
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start), "{parts:?}");
            for slot in layout.slots() {
                let owners = parts.iter().filter(|p| p.start <= slot.range.start && slot.range.end <= p.end).count();
                assert_eq!(owners, 1, "{} on {ranks}", slot.name);
            }
        }
    }
}
