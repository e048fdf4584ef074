//! The gradients of a step: where micro-batches leave them, and how they become one sum.

use super::bf16_wire::Bf16Wire;
use super::claims::Claims;
use super::crossing::{Crossing, Load};
use super::demand::{self, Demand};
use super::tree::{Addition, Merger, Node};
use crate::comm::{Comm, Host, Shared};
use crate::error::Result;
use crate::kernel::sum::{BLOCK, add, add_with_squares, block_squares};
use crate::shard::own;
use std::ops::Range;

/// The gradients of one step.
///
/// A step goes [`begin`](Self::begin), then for each own micro-batch [`open`](Self::open), [`leaf`](Self::leaf) and [`finish`](Self::finish), then
/// [`sum`](Self::sum); after that [`total`](Self::total) and [`part`](Self::part) until [`release`](Self::release).
pub struct Exchange {
    host: Box<dyn Host>,
    rank: usize,
    ranks: usize,
    /// Whether sums follow the tree of micro-batches; otherwise a rank adds up its own, and then ranks are summed.
    reproducible: bool,
    /// As [`Demand::together`].
    together: bool,
    /// What of a pair's second gradient is not in the first one already.
    joined: Vec<Range<usize>>,
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
    /// Who sums which block, the riders being the last one.
    claims: Claims,
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
    crossing: Crossing<f32>,
    wire: Option<Bf16Wire>,
}

impl Exchange {
    /// [`part`](Self::part) is to be this part of the gradient, and no other rank's of its host. What layers add of a pair's
    /// second gradient to its first is `added_once`, ascending.
    ///
    /// # Errors
    /// The host has no memory to share for them.
    pub fn build(
        comm: &dyn Comm,
        host: Box<dyn Host>,
        demand: Demand,
        added_once: &[Range<usize>],
        part: Range<usize>,
    ) -> Result<Self> {
        let Demand { reproducible, leaves, params, riders, .. } = demand;
        let (rank, ranks, len) = (comm.rank(), comm.size(), params + riders);
        let (buffers, stride) = (demand.buffers(ranks), demand.stride());
        let gradients = host.share(host.size() * buffers * stride)?;
        let blocks = params.div_ceil(BLOCK);
        let (squares, claims) = (host.share(blocks)?, Claims::build(&*host, blocks + 1)?);
        let (hosts, places) = (host.members().len(), host.size() * buffers);
        Ok(Self {
            rank,
            ranks,
            reproducible,
            together: demand.together,
            joined: demand::complement(added_once, len),
            buffers,
            len,
            params,
            part,
            gradients,
            stride,
            squares,
            claims,
            leaves: 0,
            mine: 0..0,
            local: Merger::with_capacity(leaves),
            hosted: Merger::with_capacity(places),
            other: Merger::with_capacity(places),
            sent: vec![0; hosts],
            arriving: Vec::with_capacity(places * hosts),
            across: Merger::with_capacity(places * hosts),
            crossing: Crossing::default(),
            wire: demand.bf16_wire.then(Bf16Wire::default),
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
                    demand::nodes_of(range, leaves, self.together, &mut self.local);
                    self.local.nodes.iter().for_each(|(node, place)| of_host.push(*node, first + place, leaves));
                } else if !range.is_empty() {
                    demand::add_in_order(of_host, first);
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
            true if self.together => index - self.mine.start,
            true => self.local.nodes.len(),
        };
        self.host.rank() * self.buffers + buffer
    }

    /// Makes room for the micro-batch `index`: what rides behind its gradient starts at zero, or at what those before it
    /// added.
    pub fn open(&mut self, index: usize) {
        let params = self.params;
        if self.is_fresh(index) {
            self.leaf(index)[params..].fill(0.0);
        }
    }

    /// Whether the gradient of micro-batch `index` overwrites what is there, instead of being added.
    pub fn is_fresh(&self, index: usize) -> bool {
        self.reproducible || index == self.mine.start
    }

    /// Where the micro-batch `index` leaves its gradient and adds what rides behind it.
    pub fn leaf(&mut self, index: usize) -> &mut [f32] {
        let place = self.place(self.next(index));
        // SAFETY: this rank's own buffers; others touch them only in `sum`, behind its barrier.
        unsafe { self.gradients.part_mut(place) }
    }

    /// The same, and where its elder is, if it is a pair's second.
    pub fn leaf_and_elder(&mut self, index: usize) -> (&mut [f32], Option<&mut [f32]>) {
        let own = self.place(self.next(index));
        if !self.reproducible || self.together || index.is_multiple_of(2) || index == self.mine.start {
            // SAFETY: as in `leaf`.
            return (unsafe { self.gradients.part_mut(own) }, None);
        }
        // A pair's first is the newest of those before.
        let elder = own.start - self.stride..own.start - self.stride + self.params;
        // SAFETY: as in `leaf`.
        let [own, elder] = unsafe { self.gradients.parts_mut(own, elder) };
        (own, Some(elder))
    }

    /// Says that the gradient of micro-batch `index` is complete.
    pub fn finish(&mut self, index: usize) {
        if !self.reproducible || self.together {
            return;
        }
        let (done, first) = (self.local.additions.len(), self.host.rank() * self.buffers);
        demand::push(&mut self.local, index, self.leaves, demand::stay_apart(&self.mine));
        for at in done..self.local.additions.len() {
            let Addition { to, from } = self.local.additions[at];
            let [to, from] = [first + to, first + from].map(|place| place * self.stride);
            let whole = 0..self.len;
            // A second's sum with the first comes first.
            let ranges = if at == done && index % 2 == 1 { &self.joined[..] } else { std::slice::from_ref(&whole) };
            for range in ranges {
                let [to, from] = [to, from].map(|start| start + range.start..start + range.end);
                // SAFETY: as in `leaf`.
                let [to, from] = unsafe { self.gradients.parts_mut(to, from) };
                add(to, from);
            }
        }
    }

    /// Sums over all ranks, all but the first `done` elements, which have been summed. Hands blocks of the gradient to `then` as
    /// soon as they are final and while they are in cache, if they are finite: each to one rank of the host, whichever is free.
    /// Returns the gradient's Σ v².
    pub fn sum(&mut self, done: usize, mut then: impl FnMut(Range<usize>, &mut [f32])) -> f64 {
        self.host.barrier();
        let several = self.host.members().len() > 1;
        if several {
            self.claims.own().for_each(|block| self.add_hosted(block, done, false));
            self.host.barrier();
            self.sum_across(done);
            self.host.barrier();
        }
        let mut passed = 0;
        while let Some(blocks) = self.claims.take(&mut passed) {
            for block in blocks {
                match several {
                    true => self.square(block),
                    false => self.add_hosted(block, done, true),
                }
                self.hand_over(block, &mut then);
            }
        }
        self.host.barrier();
        self.claims.reset();
        self.squares.iter().sum()
    }

    /// Sums over this host's ranks only, but what rides behind the gradient over all ranks; before, `ride` may add to that,
    /// on one rank of each host, from the host's Σ v². Returns that.
    pub fn sum_on_host(&mut self, ride: impl FnOnce(f64, &mut [f32])) -> f64 {
        self.host.barrier();
        self.claims.own().for_each(|block| self.add_hosted(block, 0, true));
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
        let riders = unsafe { self.gradients.part_mut(at + self.params..at + self.len) };
        self.crossing.sum(&*self.host, riders);
    }

    /// The elements of a block; the last one is the riders.
    fn block(&self, block: usize) -> Range<usize> {
        match block < self.squares.len() {
            true => block * BLOCK..(block * BLOCK + BLOCK).min(self.params),
            false => self.params..self.len,
        }
    }

    fn hand_over(&mut self, block: usize, then: &mut impl FnMut(Range<usize>, &mut [f32])) {
        if self.squares.get(block).is_some_and(|squares| squares.is_finite()) {
            let (range, at) = (self.block(block), self.total_place() * self.stride);
            // SAFETY: until the next barrier the block is this rank's in all places.
            then(range.clone(), unsafe { self.gradients.part_mut(at + range.start..at + range.end) });
        }
    }

    /// Adds up the host's gradients in a block, and its squares if they are `wanted`; on a host without a micro-batch the
    /// gradients are zero, from element `done` on.
    fn add_hosted(&mut self, block: usize, done: usize, wanted: bool) {
        let Range { start: first, end: last } = self.block(block);
        if self.hosted.nodes.is_empty() {
            // SAFETY: until the next barrier the block is this rank's in all places.
            unsafe { self.gradients.part_mut(first.max(done).min(last)..last) }.fill(0.0);
        }
        let additions = &self.hosted.additions;
        for (number, Addition { to, from }) in additions.iter().enumerate() {
            let [to, from] = [to, from].map(|place| place * self.stride + first..place * self.stride + last);
            // SAFETY: until the next barrier the block is this rank's in all places.
            let [to, from] = unsafe { self.gradients.parts_mut(to, from) };
            if wanted && number + 1 == additions.len() && block < self.squares.len() {
                let sum = add_with_squares(to, from);
                // SAFETY: the block is this rank's.
                unsafe { self.squares.part_mut(block..block + 1)[0] = sum };
                return;
            }
            add(to, from);
        }
        if wanted {
            self.square(block);
        }
    }

    fn square(&mut self, block: usize) {
        if block < self.squares.len() {
            let (range, at) = (self.block(block), self.total_place() * self.stride);
            let sum = block_squares(&self.gradients[at + range.start..at + range.end]);
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
            let slice = unsafe { self.gradients.part_mut(total + slice.start..total + slice.end) };
            return self.crossing.sum(&*self.host, slice);
        }
        let mut tree = Tree {
            gradients: &mut self.gradients,
            stride: self.stride,
            total: total + slice.start..total + slice.end,
            first: slice.start,
            hosted: &self.hosted,
            sent: &self.sent,
            arriving: &self.arriving,
            across: &self.across,
        };
        self.crossing.run(&*self.host, slice.len(), |host| self.sent[host], &mut tree);
    }

    /// Where the sum ends up: on a host without a micro-batch in its first place.
    fn total_place(&self) -> usize {
        self.hosted.nodes.first().map_or(0, |(_, place)| *place)
    }

    /// After [`Exchange::sum`]: the gradient of the global batch and what rides behind it.
    pub fn total(&self) -> &[f32] {
        &self.gradients[self.place(self.total_place())]
    }

    /// After [`Exchange::sum`]: this rank's part of the gradient, which it may overwrite.
    pub fn part(&mut self) -> &mut [f32] {
        let at = self.total_place() * self.stride;
        // SAFETY: the parts of a host's ranks are disjoint, as `build` demands.
        unsafe { self.gradients.part_mut(at + self.part.start..at + self.part.end) }
    }

    /// Ends the step: waits for the host's ranks, who then are done with the total and with their parts.
    pub fn release(&mut self) {
        self.host.barrier();
    }
}

/// A lane's slice of a host's nodes, which are summed in the order of the tree.
struct Tree<'a> {
    gradients: &'a mut Shared<f32>,
    stride: usize,
    /// Where the slice of the sum lies.
    total: Range<usize>,
    /// Where the slice begins in each place.
    first: usize,
    hosted: &'a Merger,
    sent: &'a [usize],
    arriving: &'a [(Node, usize, usize)],
    across: &'a Merger,
}

impl Load<f32> for Tree<'_> {
    fn node(&self, which: usize) -> &[f32] {
        let at = self.hosted.nodes[which].1 * self.stride + self.first;
        &self.gradients[at..at + self.total.len()]
    }

    fn sum(&mut self, mine: Range<usize>, arrived: &mut [f32]) {
        let len = mine.len();
        // The nodes of a host lie together.
        let start = |at: usize| {
            let (_, host, which) = self.arriving[at];
            (self.sent[..host].iter().sum::<usize>() + which) * len
        };
        for Addition { to, from } in &self.across.additions {
            let (to, from) = (start(*to), start(*from));
            if let Ok([to, from]) = arrived.get_disjoint_mut([to..to + len, from..from + len]) {
                add(to, from);
            }
        }
        if let Some((_, root)) = self.across.nodes.first() {
            let root = start(*root);
            self.total(mine).copy_from_slice(&arrived[root..root + len]);
        }
    }

    fn total(&mut self, range: Range<usize>) -> &mut [f32] {
        let start = self.total.start;
        // SAFETY: until the next barrier the slice is this rank's in all places.
        unsafe { self.gradients.part_mut(start + range.start..start + range.end) }
    }
}
