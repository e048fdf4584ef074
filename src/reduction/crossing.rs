//! Sums over hosts: of each piece every host of a lane adds up one part, and sends that sum to all. As many bytes as a ring
//! sends; and many pieces are under way at once, so that a link's latency counts twice in a sum, and not in every piece.

use crate::comm::Host;
use crate::kernel::sum::add;
use crate::shard::own;
use bytemuck::Zeroable;
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes on their way to a rank, about: what a link of 1 Gbit/s carries in 4 ms. Twice as much made links without delay some
/// percent slower.
const UNDER_WAY: usize = 1 << 19;

/// What a host has to be summed: some nodes of the same length, and room for their sum over hosts, which may be one of them.
pub(super) trait Load<T> {
    /// Makes a piece of the nodes ready to be sent, but for `mine`.
    fn ready(&mut self, _piece: Range<usize>, _mine: Range<usize>) {}
    /// One of this host's nodes.
    fn node(&self, which: usize) -> &[T];
    /// Leaves in the total at `mine` the sum of what has come for it: one node after the other, host by host.
    fn sum(&mut self, mine: Range<usize>, arrived: &mut [T]);
    /// Where the sum over hosts goes, at `range`.
    fn total(&mut self, range: Range<usize>) -> &mut [T];
}

/// Sums over hosts, and memory for what arrives.
#[derive(Default)]
pub struct Crossing<T> {
    inbox: Vec<T>,
    /// The messages of each piece on its way.
    offered: VecDeque<Range<usize>>,
}

/// How a slice is cut.
struct Cut {
    len: usize,
    hosts: usize,
    /// Elements of a message, at most.
    most: usize,
}

impl Cut {
    fn pieces(&self) -> usize {
        self.len.div_ceil(self.hosts * self.most)
    }

    fn piece(&self, piece: usize) -> Range<usize> {
        let start = piece * self.hosts * self.most;
        start..self.len.min(start + self.hosts * self.most)
    }

    /// What of a piece a host adds up.
    fn part(&self, piece: usize, host: usize) -> Range<usize> {
        let Range { start, end } = self.piece(piece);
        let part = own(end - start, host, self.hosts);
        start + part.start..start + part.end
    }
}

impl<T: Copy + Zeroable> Crossing<T> {
    /// Sums the `len` elements of `load`, of which each host has as many nodes as `sent` says. All of a lane call it.
    pub(super) fn run(&mut self, host: &dyn Host, len: usize, sent: impl Fn(usize) -> usize, load: &mut impl Load<T>) {
        let (hosts, me) = (host.members().len(), host.index());
        let cut = Cut { len, hosts, most: (host.message() / size_of::<T>()).max(1) };
        let before: usize = (0..me).map(&sent).sum();
        let nodes: usize = (0..hosts).map(&sent).sum();
        let (pieces, room) = (cut.pieces(), nodes * cut.most);
        let under_way = (UNDER_WAY / (room * size_of::<T>()).max(1)).max(2).min(pieces);
        if self.inbox.len() < under_way * room {
            self.inbox.resize(under_way * room, T::zeroed());
        }
        let inbox = &mut self.inbox;
        let offer = |piece: usize, inbox: &mut [T], load: &mut _| {
            let first = host.started();
            offer(host, &cut, piece, &sent, &mut inbox[piece % under_way * room..][..room], load);
            first..host.started()
        };
        self.offered.clear();
        self.offered.extend((0..under_way).map(|piece| offer(piece, inbox, load)));
        for piece in 0..pieces {
            // What is sent may be overwritten by what comes back, so it has to be gone.
            host.finish(self.offered.pop_front().unwrap_or_default());
            let (mine, arrived) = (cut.part(piece, me), piece % under_way * room);
            let arrived = &mut inbox[arrived..arrived + nodes * mine.len()];
            for (which, to) in
                arrived[before * mine.len()..].chunks_exact_mut(mine.len().max(1)).take(sent(me)).enumerate()
            {
                to.copy_from_slice(&load.node(which)[mine.clone()]);
            }
            load.sum(mine, arrived);
            answer(host, &cut, piece, load);
            if piece + under_way < pieces {
                self.offered.push_back(offer(piece + under_way, inbox, load));
            }
        }
        host.finish_all();
    }
}

/// Starts the messages of a piece: each host's part of my nodes to it, and my part of theirs into `inbox`.
fn offer<T>(
    host: &dyn Host,
    cut: &Cut,
    piece: usize,
    sent: &impl Fn(usize) -> usize,
    inbox: &mut [T],
    load: &mut impl Load<T>,
) {
    let (me, mine) = (host.index(), cut.part(piece, host.index()));
    load.ready(cut.piece(piece), mine.clone());
    let mut at = 0;
    for other in 0..cut.hosts {
        for _ in 0..sent(other) {
            if other != me {
                // SAFETY: `run` touches neither this piece of the inbox nor of the nodes before it has finished its messages.
                unsafe { receive(host, other, &mut inbox[at..at + mine.len()]) };
            }
            at += mine.len();
        }
    }
    for other in (0..cut.hosts).filter(|other| *other != me) {
        for which in 0..sent(me) {
            // SAFETY: as above.
            unsafe { send(host, other, &load.node(which)[cut.part(piece, other)]) };
        }
    }
}

/// Starts the messages by which all get the sum of a piece.
fn answer<T>(host: &dyn Host, cut: &Cut, piece: usize, load: &mut impl Load<T>) {
    let me = host.index();
    for other in (0..cut.hosts).filter(|other| *other != me) {
        // SAFETY: `run` touches no more of this piece before all messages are finished.
        unsafe {
            receive(host, other, load.total(cut.part(piece, other)));
            send(host, other, load.total(cut.part(piece, me)));
        }
    }
}

/// # Safety
/// As [`Host::send`].
unsafe fn send<T>(host: &dyn Host, to: usize, elements: &[T]) {
    if !elements.is_empty() {
        // SAFETY: the caller's contract.
        unsafe { host.send(to, elements.as_ptr().cast(), size_of_val(elements)) };
    }
}

/// # Safety
/// As [`Host::receive`].
unsafe fn receive<T>(host: &dyn Host, from: usize, elements: &mut [T]) {
    if !elements.is_empty() {
        // SAFETY: the caller's contract.
        unsafe { host.receive(from, elements.as_mut_ptr().cast(), size_of_val(elements)) };
    }
}

/// Values of which every host has one.
struct Plain<'a>(&'a mut [f32]);

impl Load<f32> for Plain<'_> {
    fn node(&self, _which: usize) -> &[f32] {
        self.0
    }

    fn sum(&mut self, mine: Range<usize>, arrived: &mut [f32]) {
        let (total, len) = (&mut self.0[mine.clone()], mine.len().max(1));
        for (host, values) in arrived.chunks_exact(len).enumerate() {
            match host {
                0 => total.copy_from_slice(values),
                _ => add(total, values),
            }
        }
    }

    fn total(&mut self, range: Range<usize>) -> &mut [f32] {
        &mut self.0[range]
    }
}

impl Crossing<f32> {
    /// Sums `values` over hosts, to the same bits on all: in the order of hosts, or as MPI does where one message carries them.
    /// All of a lane call it.
    pub fn sum(&mut self, host: &dyn Host, values: &mut [f32]) {
        match size_of_val(values) <= host.message() {
            true => host.sum_lane(values),
            false => self.run(host, values.len(), |_| 1, &mut Plain(values)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_slice_in_short_messages() {
        for (len, hosts, most) in [(0, 2, 4), (1, 3, 4), (1000, 2, 7), (99_999, 3, 40), (9, 4, 1 << 20)] {
            let cut = Cut { len, hosts, most };
            let mut at = 0;
            for (piece, host) in (0..cut.pieces()).flat_map(|piece| (0..hosts).map(move |host| (piece, host))) {
                let part = cut.part(piece, host);
                assert!(part.start == at && part.len() <= most, "{part:?} of {len}");
                at = part.end;
            }
            assert_eq!(at, len);
        }
    }
}
