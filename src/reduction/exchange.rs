//! The gradients of a step: where micro-batches leave them, and how they become one sum.

use super::bf16_wire::Bf16Wire;
use super::tree::{Addition, Merger, Node};
use crate::comm::{Comm, Host, Parts, Shared};
use crate::data::shard::own;
use crate::error::{Error, Result};
use crate::kernel::sum::{BLOCK, add_and_clear, block_squares};
use std::ops::Range;

/// Up to so many gradients of a rank stay apart until the host's sum, which then adds all of them in one pass; of more
/// micro-batches siblings are added as they come.
const APART: usize = 4;
/// Up to so many micro-batches the number of buffers is found by trying all counts.
const TRIED: usize = 1024;

/// What an [`Exchange`] is for.
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
    fn stride(&self) -> usize {
        (self.params + self.riders).next_multiple_of(BLOCK) + 16
    }

    /// Up to so many micro-batches of a rank stay apart.
    fn apart(&self, ranks: usize) -> usize {
        if self.together { APART.max(self.leaves.div_ceil(ranks)) } else { APART }
    }

    /// Gradients that a rank holds at once, at most.
    fn buffers(&self, ranks: usize) -> usize {
        match (self.reproducible, self.together) {
            (false, _) => 1,
            (true, false) => most_buffers(self.leaves, ranks),
            (true, true) => self.leaves.div_ceil(ranks),
        }
    }
}

/// The gradients of one step.
///
/// A step goes [`begin`](Self::begin), then for each own micro-batch [`leaf`](Self::leaf) and [`finish`](Self::finish), then
/// [`sum`](Self::sum); after that [`total`](Self::total) and [`part`](Self::part) until [`release`](Self::release).
/// Gradients are zero when they are handed out.
pub struct Exchange {
    host: Box<dyn Host>,
    rank: usize,
    ranks: usize,
    /// Whether sums follow the tree of micro-batches; otherwise a rank adds up its own, and then ranks are summed.
    reproducible: bool,
    /// Up to so many micro-batches of a rank stay apart.
    apart: usize,
    /// Gradients a rank keeps apart.
    buffers: usize,
    /// Elements of the gradient and what rides behind it.
    len: usize,
    /// Elements of the gradient.
    params: usize,
    /// What this rank updates.
    part: Range<usize>,
    /// Place p is `p·stride..p·stride + len`; rank r of the host has the places from r·buffers on.
    gradients: Shared<f32>,
    stride: usize,
    /// Σ v² of each block of the gradient.
    squares: Shared<f64>,
    /// This step's micro-batches, and which are mine.
    leaves: usize,
    mine: Range<usize>,
    local: Merger,
    /// How the places of this host are added up.
    hosted: Merger,
    /// The same of another host, for its nodes only.
    other: Merger,
    /// Nodes each host sends.
    sent: Vec<usize>,
    /// All of them in the order of their leaves: node, host, which of its nodes.
    arriving: Vec<(Node, usize, usize)>,
    /// How they are added up on arrival.
    across: Merger,
    outbox: Vec<f32>,
    inbox: Vec<f32>,
    sending: Parts,
    receiving: Parts,
    wire: Option<Bf16Wire>,
}

impl Exchange {
    /// This rank updates `part` of the parameters, no other rank of its host does.
    ///
    /// # Errors
    /// The host has no memory to share for them, or MPI cannot count what a message would hold.
    pub fn build(comm: &dyn Comm, host: Box<dyn Host>, demand: Demand, part: Range<usize>) -> Result<Self> {
        let Demand { reproducible, leaves, params, riders, .. } = demand;
        let (rank, ranks, len) = (comm.rank(), comm.size(), params + riders);
        let (buffers, stride) = (demand.buffers(ranks), demand.stride());
        let gradients = host.share(host.size() * buffers * stride)?;
        let squares = host.share(params.div_ceil(BLOCK))?;
        let (hosts, places) = (host.members().len(), host.size() * buffers);
        // Of each of its places a lane sends its slice.
        let message = (places * len.div_ceil(host.lanes())) as u64;
        if reproducible && hosts > 1 && message > i32::MAX as u64 {
            let what = format!("a message between hosts would have {message} elements, more than MPI can count");
            let mend = "use \"allreduce\", a larger train.micro_batch, or more ranks on each host";
            return Err(Error::usage("distributed.reduction", what, mend));
        }
        Ok(Self {
            rank,
            ranks,
            reproducible,
            apart: demand.apart(ranks),
            buffers,
            len,
            params,
            part,
            gradients,
            stride,
            squares,
            leaves: 0,
            mine: 0..0,
            local: Merger::with_capacity(leaves),
            hosted: Merger::with_capacity(places),
            other: Merger::with_capacity(places),
            sent: vec![0; hosts],
            arriving: Vec::with_capacity(places * hosts),
            across: Merger::with_capacity(places * hosts),
            outbox: Vec::new(),
            inbox: Vec::new(),
            sending: Parts::with_capacity(hosts),
            receiving: Parts::with_capacity(hosts),
            wire: demand.bf16_wire.then(|| Bf16Wire::with_capacity(hosts)),
            host,
        })
    }

    /// Elements of shared memory a rank adds for its gradients.
    pub fn elements(&self) -> usize {
        self.buffers * self.stride
    }

    /// The ranks that share memory with this one.
    pub fn host(&self) -> &dyn Host {
        &*self.host
    }

    /// Starts a step of `leaves` micro-batches; those that this rank computes.
    pub fn begin(&mut self, leaves: usize) -> Range<usize> {
        if leaves != self.leaves {
            self.leaves = leaves;
            self.mine = own(leaves, self.rank, self.ranks);
            self.plan();
        }
        self.local.clear();
        self.mine.clone()
    }

    /// Works out who adds what to what.
    fn plan(&mut self) {
        let (leaves, ranks) = (self.leaves, self.ranks);
        self.across.clear();
        self.arriving.clear();
        for (host, members) in self.host.members().iter().enumerate() {
            let of_host = if host == self.host.index() { &mut self.hosted } else { &mut self.other };
            of_host.clear();
            for (number, &rank) in members.iter().enumerate() {
                let (range, first) = (own(leaves, rank, ranks), number * self.buffers);
                if self.reproducible {
                    nodes_of(range, leaves, self.apart, &mut self.local);
                    self.local.nodes.iter().for_each(|(node, place)| of_host.push(*node, first + place, leaves));
                } else if !range.is_empty() {
                    add_in_order(of_host, first);
                }
            }
            self.sent[host] = of_host.nodes.len();
            let nodes = of_host.nodes.iter().enumerate();
            self.arriving.extend(nodes.map(|(which, (node, _))| (*node, host, which)));
        }
        self.arriving.sort_unstable_by_key(|(node, ..)| node.first_leaf());
        if self.reproducible {
            for (place, (node, ..)) in self.arriving.iter().enumerate() {
                self.across.push(*node, place, leaves);
            }
        }
    }

    fn place(&self, place: usize) -> Range<usize> {
        place * self.stride..place * self.stride + self.len
    }

    /// Where this rank's next gradient goes.
    fn next(&self, index: usize) -> usize {
        let buffer = match self.reproducible {
            false => 0,
            true if self.mine.len() <= self.apart => index - self.mine.start,
            true => self.local.nodes.len(),
        };
        self.host.rank() * self.buffers + buffer
    }

    /// Where the micro-batch `index` adds its gradient and what rides behind it.
    pub fn leaf(&mut self, index: usize) -> &mut [f32] {
        let place = self.place(self.next(index));
        // SAFETY: this rank's own buffers; others touch them only in `sum`, behind its barrier.
        unsafe { self.gradients.part_mut(place) }
    }

    /// Says that the gradient of micro-batch `index` is complete.
    pub fn finish(&mut self, index: usize) {
        if !self.reproducible || self.mine.len() <= self.apart {
            return;
        }
        let (done, first) = (self.local.additions.len(), self.host.rank() * self.buffers);
        self.local.push(Node::leaf(index, self.leaves), self.local.nodes.len(), self.leaves);
        for at in done..self.local.additions.len() {
            let Addition { to, from } = self.local.additions[at];
            let (to, from) = (self.place(first + to), self.place(first + from));
            // SAFETY: as in `leaf`.
            let [to, from] = unsafe { self.gradients.parts_mut(to, from) };
            add_and_clear(to, from);
        }
    }

    /// Sums over all ranks, all but the first `done` elements, which have been summed. Returns the gradient's Σ v².
    pub fn sum(&mut self, done: usize) -> f64 {
        self.host.barrier();
        let several = self.host.members().len() > 1;
        let blocks = own(self.len.div_ceil(BLOCK), self.host.rank(), self.host.size());
        for block in blocks.clone() {
            self.add_hosted(block);
            if !several {
                self.square(block);
            }
        }
        if several {
            self.host.barrier();
            self.sum_across(done);
            self.host.barrier();
            blocks.for_each(|block| self.square(block));
        }
        self.host.barrier();
        self.squares.iter().sum()
    }

    /// Sums over this host's ranks only, but what rides behind the gradient over all ranks; before, `ride` may add to that,
    /// on one rank of each host, from the host's Σ v². Returns that.
    pub fn sum_on_host(&mut self, ride: impl FnOnce(f64, &mut [f32])) -> f64 {
        self.host.barrier();
        for block in own(self.len.div_ceil(BLOCK), self.host.rank(), self.host.size()) {
            self.add_hosted(block);
            self.square(block);
        }
        self.host.barrier();
        let squares = self.squares.iter().sum();
        if self.host.rank() == 0 {
            let at = self.total_place() * self.stride;
            // SAFETY: until the next barrier what rides behind the gradient is this rank's.
            ride(squares, unsafe { self.gradients.part_mut(at + self.params..at + self.len) });
            self.sum_riders();
        }
        self.host.barrier();
        squares
    }

    /// Sums what rides behind the gradient over this lane.
    fn sum_riders(&mut self) {
        let at = self.total_place() * self.stride;
        // SAFETY: the callers' lane has it to itself.
        self.host.sum_lane(unsafe { self.gradients.part_mut(at + self.params..at + self.len) });
    }

    /// Adds up the host's gradients in a block.
    fn add_hosted(&mut self, block: usize) {
        let (first, last) = (block * BLOCK, (block * BLOCK + BLOCK).min(self.len));
        for Addition { to, from } in &self.hosted.additions {
            let [to, from] = [to, from].map(|place| place * self.stride + first..place * self.stride + last);
            // SAFETY: until the next barrier the block is this rank's in all places.
            let [to, from] = unsafe { self.gradients.parts_mut(to, from) };
            add_and_clear(to, from);
        }
    }

    fn square(&mut self, block: usize) {
        let (first, last) = (block * BLOCK, (block * BLOCK + BLOCK).min(self.params));
        if first < last {
            let at = self.total_place() * self.stride;
            let sum = block_squares(&self.gradients[at + first..at + last]);
            // SAFETY: the block is this rank's.
            unsafe { self.squares.part_mut(block..block + 1)[0] = sum };
        }
    }

    /// Sums this lane's slice over hosts.
    fn sum_across(&mut self, done: usize) {
        let (lane, lanes) = (self.host.rank(), self.host.lanes());
        if lane >= lanes {
            return;
        }
        let total = self.total_place() * self.stride;
        if let Some(wire) = &mut self.wire {
            let slice = own(self.params, lane, lanes);
            // SAFETY: until the next barrier the lane's slice is this rank's in all places.
            wire.sum(&*self.host, unsafe { self.gradients.part_mut(total + slice.start..total + slice.end) });
            if lane == 0 {
                self.sum_riders();
            }
            return;
        }
        let slice = own(self.len - done, lane, lanes);
        let slice = done + slice.start..done + slice.end;
        if !self.reproducible {
            // SAFETY: until the next barrier the slice is this rank's in all places.
            self.host.sum_lane(unsafe { self.gradients.part_mut(total + slice.start..total + slice.end) });
            return;
        }
        let (hosts, me) = (self.sent.len(), self.host.index());
        let sub = |host: usize| {
            let part = own(slice.len(), host, hosts);
            slice.start + part.start..slice.start + part.end
        };
        // Each host gets its part of the slice of all my nodes.
        self.outbox.clear();
        for host in 0..hosts {
            let part = sub(host);
            for (_, place) in &self.hosted.nodes {
                let at = place * self.stride;
                self.outbox.extend_from_slice(&self.gradients[at + part.start..at + part.end]);
            }
        }
        self.sending.set((0..hosts).map(|host| self.sent[me] * sub(host).len()));
        self.receiving.set((0..hosts).map(|host| self.sent[host] * sub(me).len()));
        for (_, place) in &self.hosted.nodes {
            let at = place * self.stride;
            // SAFETY: as above.
            unsafe { self.gradients.part_mut(at + slice.start..at + slice.end) }.fill(0.0);
        }
        let part = sub(me);
        self.inbox.resize(self.arriving.len() * part.len(), 0.0);
        self.host.exchange(&self.outbox, &self.sending, &mut self.inbox, &self.receiving);
        self.add_arrived(part.clone(), total);
        self.sending.set((0..hosts).map(|host| sub(host).len()));
        // SAFETY: as above.
        let slice = unsafe { self.gradients.part_mut(total + slice.start..total + slice.end) };
        self.host.gather(slice, &self.sending);
    }

    /// Adds up what came from all hosts for `part`, into the place that begins at `total`.
    fn add_arrived(&mut self, part: Range<usize>, total: usize) {
        let len = part.len();
        // The nodes of a host lie together in the inbox.
        let start = |at: usize| {
            let (_, host, which) = self.arriving[at];
            (self.sent[..host].iter().sum::<usize>() + which) * len
        };
        for first in (0..len).step_by(BLOCK) {
            let last = (first + BLOCK).min(len);
            for Addition { to, from } in &self.across.additions {
                let (to, from) = (start(*to), start(*from));
                let parts = [to + first..to + last, from + first..from + last];
                if let Ok([to, from]) = self.inbox.get_disjoint_mut(parts) {
                    add_and_clear(to, from);
                }
            }
        }
        if let Some((_, root)) = self.across.nodes.first() {
            let root = start(*root);
            // SAFETY: as in `sum_across`.
            unsafe { self.gradients.part_mut(total + part.start..total + part.end) }
                .copy_from_slice(&self.inbox[root..root + len]);
        }
    }

    /// Where the sum ends up: a host without a micro-batch has zeros in its first place.
    fn total_place(&self) -> usize {
        self.hosted.nodes.first().map_or(0, |(_, place)| *place)
    }

    /// After [`Exchange::sum`]: the gradient of the global batch and what rides behind it.
    pub fn total(&self) -> &[f32] {
        &self.gradients[self.place(self.total_place())]
    }

    /// After [`Exchange::sum`]: this rank's part of the gradient, to be used up and left at zero.
    pub fn part(&mut self) -> &mut [f32] {
        let at = self.total_place() * self.stride;
        // SAFETY: the parts of a host's ranks are disjoint, as `build` demands.
        unsafe { self.gradients.part_mut(at + self.part.start..at + self.part.end) }
    }

    /// Ends the step, when all parts of the gradient are at zero: what rides behind it becomes zero too. Waits for the
    /// host's ranks before; they may go on to anything but [`Exchange::leaf`], which a barrier must come before.
    pub fn release(&mut self) {
        self.host.barrier();
        if self.host.rank() == 0 {
            let at = self.total_place() * self.stride;
            // SAFETY: between these barriers only the host's first rank touches gradients.
            unsafe { self.gradients.part_mut(at + self.params..at + self.len) }.fill(0.0);
        }
    }
}

/// Leaves in `local` the nodes that a rank with the leaves `range` brings into its host's sum, with its buffers.
fn nodes_of(range: Range<usize>, leaves: usize, apart: usize, local: &mut Merger) {
    local.clear();
    let apart = range.len() <= apart;
    for (number, leaf) in range.enumerate() {
        match apart {
            true => local.nodes.push((Node::leaf(leaf, leaves), number)),
            false => local.push(Node::leaf(leaf, leaves), local.nodes.len(), leaves),
        }
    }
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
            if range.len() <= APART {
                most = most.max(range.len());
                continue;
            }
            local.clear();
            for leaf in range {
                // Before the push, the new leaf has a buffer of its own.
                most = most.max(local.nodes.len() + 1);
                local.push(Node::leaf(leaf, leaves), local.nodes.len(), leaves);
            }
        }
    }
    most
}

/// Without a tree: one place for all of a host, to which the others are added in order of rank.
fn add_in_order(of_host: &mut Merger, place: usize) {
    match of_host.nodes.first() {
        None => of_host.nodes.push((Node::leaf(0, 1), place)),
        Some((_, to)) => of_host.additions.push(Addition { to: *to, from: place }),
    }
}
