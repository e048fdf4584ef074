//! What an exchange is asked for, and in which buffers a rank's gradients lie.

use super::tree::{Addition, Merger, Node};
use crate::kernel::sum::BLOCK;
use crate::shard::own;
use std::ops::Range;

/// Up to so many pairs of a rank's gradients stay apart until the host's sum, which then adds all of them in one pass; of
/// more the sums are made as soon as they can be.
const APART: usize = 4;
/// Up to so many micro-batches the number of buffers is found by trying all counts.
const TRIED: usize = 1024;

/// What an [`Exchange`](super::Exchange) is for.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Whether sums follow the tree of micro-batches; otherwise a rank adds up its own, and then ranks are summed.
    pub reproducible: bool,
    /// Micro-batches of a step, at most.
    pub leaves: usize,
    /// Whether a rank works on all its micro-batches at once, instead of one after the other.
    pub together: bool,
    /// Whether hosts send each other bf16.
    pub bf16_wire: bool,
    /// Elements of the gradient.
    pub params: usize,
    /// Elements behind it that are summed with it.
    pub riders: usize,
}

impl Demand {
    /// Elements of shared memory that each of `ranks` adds.
    pub fn elements(&self, ranks: usize) -> usize {
        self.buffers(ranks) * self.stride()
    }

    /// Elements from one place to the next: not a power of two, whose places would share sets of the cache.
    pub(super) fn stride(&self) -> usize {
        (self.params + self.riders).next_multiple_of(BLOCK) + 16
    }

    /// Gradients that a rank holds at once, at most.
    pub(super) fn buffers(&self, ranks: usize) -> usize {
        match (self.reproducible, self.together) {
            (false, _) => 1,
            (true, false) => most_buffers(self.leaves, ranks),
            (true, true) => self.leaves.div_ceil(ranks),
        }
    }
}

/// Leaves in `local` the nodes that a rank with the leaves `range` brings into its host's sum, with its buffers.
pub(super) fn nodes_of(range: Range<usize>, leaves: usize, together: bool, local: &mut Merger) {
    local.clear();
    let apart = stay_apart(&range);
    for (number, leaf) in range.enumerate() {
        match together {
            true => local.nodes.push((Node::leaf(leaf, leaves), number)),
            false => push(local, leaf, leaves, apart),
        }
    }
}

/// Takes a rank's next leaf, in the buffer behind those in use; siblings are added, further up only if nodes do not stay
/// `apart`.
pub(super) fn push(local: &mut Merger, leaf: usize, leaves: usize, apart: bool) {
    let place = local.nodes.len();
    match apart {
        true => local.push_pair(leaf, place, leaves),
        false => local.push(Node::leaf(leaf, leaves), place, leaves),
    }
}

/// Whether a rank's gradients stay apart, but for pairs of siblings, until the host's sum.
pub(super) fn stay_apart(range: &Range<usize>) -> bool {
    range.end.div_ceil(2) - range.start / 2 <= APART
}

/// What lies between `ranges`, ascending, in 0..len.
pub(super) fn complement(ranges: &[Range<usize>], len: usize) -> Vec<Range<usize>> {
    let starts = std::iter::once(0).chain(ranges.iter().map(|range| range.end));
    let ends = ranges.iter().map(|range| range.start).chain(std::iter::once(len));
    starts.zip(ends).filter(|(start, end)| start < end).map(|(start, end)| start..end).collect()
}

/// Gradients that a rank of `ranks` holds apart at once, at most, for any batch of up to `leaves` micro-batches.
fn most_buffers(leaves: usize, ranks: usize) -> usize {
    if leaves > TRIED {
        // Merged as they come, at most two of each level are left.
        return 2 * leaves.ilog2() as usize + 2;
    }
    let mut most = 1;
    let mut local = Merger::default();
    for leaves in 1..=leaves {
        for rank in 0..ranks.min(leaves) {
            let range = own(leaves, rank, ranks);
            let apart = stay_apart(&range);
            local.clear();
            for leaf in range {
                // Before the push, the new leaf has a buffer of its own.
                most = most.max(local.nodes.len() + 1);
                push(&mut local, leaf, leaves, apart);
            }
        }
    }
    most
}

/// Without a tree: one place for all of a host, to which the others are added in order of rank.
pub(super) fn add_in_order(of_host: &mut Merger, place: usize) {
    match of_host.nodes.first() {
        None => of_host.nodes.push((Node::leaf(0, 1), place)),
        Some((_, to)) => of_host.additions.push(Addition { to: *to, from: place }),
    }
}
