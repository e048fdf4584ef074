//! The ranks of a host as one machine.

use super::Shared;
use crate::error::Result;
use bytemuck::Pod;
use std::ops::Range;

/// Bytes of a message between hosts, at most. Over TCP, MPI keeps a longer one (64 KB and more) until its receiver has asked
/// for it; that word waits behind what the receiver is sending itself, and a link then carries one direction at a time.
pub const MESSAGE: usize = 30 << 10;
/// The same where ranks of one host send each other messages.
pub(super) const MESSAGE_INSIDE: usize = 256 << 10;

/// `range` in pieces of which each of `ranks` has one message of up to `message` bytes, `width` an element.
pub(super) fn pieces(
    range: Range<usize>,
    ranks: usize,
    message: usize,
    width: usize,
) -> impl Iterator<Item = Range<usize>> {
    let most = ranks * (message / width).max(1);
    range.clone().step_by(most).map(move |start| start..range.end.min(start + most))
}

/// The ranks that share a host's memory, and this rank's lane: the ranks of the same number on the other hosts.
/// All ranks of a host call each of these, in the same order, but for the lane's, which all ranks of a lane call.
pub trait Host {
    /// This rank's number on its host.
    fn rank(&self) -> usize;
    /// Ranks on this host.
    fn size(&self) -> usize;
    /// This host's number.
    fn index(&self) -> usize;
    /// The ranks of each host, ascending.
    fn members(&self) -> &[Vec<usize>];
    /// Shared memory of `len` zeros, aligned to a cache line.
    ///
    /// # Errors
    /// The host has not enough of it; on all its ranks.
    fn share_bytes(&self, len: usize) -> Result<Shared<u8>>;
    /// Waits for the ranks of this host.
    fn barrier(&self);
    /// Lanes there are: ranks of the host that has fewest. A rank of a higher number has no lane.
    fn lanes(&self) -> usize;
    /// Bytes of a message to another host of the lane, at most.
    fn message(&self) -> usize;
    /// Sums element by element over the lane, in place.
    fn sum_lane(&self, values: &mut [f32]);
    /// Sends part h of `send` to host h of the lane, and gets part h of `receive` from it; elements have `width` bytes, 2 or 4.
    fn exchange_lane(&self, width: usize, send: &[u8], sent: &Parts, receive: &mut [u8], received: &Parts);
    /// Everybody in the lane gets all parts of `whole`, of which part h is host h's; elements have `width` bytes, 2 or 4.
    fn gather_lane(&self, width: usize, whole: &mut [u8], parts: &Parts);
}

impl dyn Host + '_ {
    /// Shared memory of `len` zero elements.
    ///
    /// # Errors
    /// As [`Host::share_bytes`].
    pub fn share<T: Pod>(&self, len: usize) -> Result<Shared<T>> {
        Ok(self.share_bytes(len * size_of::<T>())?.cast())
    }

    /// `range` in pieces of which each host of the lane has one message, of `width` bytes an element.
    pub fn pieces(&self, range: Range<usize>, width: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        pieces(range, self.members().len(), self.message(), width)
    }

    /// [`Host::exchange_lane`] of elements.
    pub fn exchange<T: Pod>(&self, send: &[T], sent: &Parts, receive: &mut [T], received: &Parts) {
        let receive = bytemuck::cast_slice_mut(receive);
        self.exchange_lane(size_of::<T>(), bytemuck::cast_slice(send), sent, receive, received);
    }

    /// [`Host::gather_lane`] of elements.
    pub fn gather<T: Pod>(&self, whole: &mut [T], parts: &Parts) {
        self.gather_lane(size_of::<T>(), bytemuck::cast_slice_mut(whole), parts);
    }
}

/// A buffer's parts, one a host, one after the other; counted in i32 as MPI does.
#[derive(Debug, Default)]
pub struct Parts {
    lens: Vec<i32>,
    starts: Vec<i32>,
}

impl Parts {
    /// For so many hosts without further allocation.
    pub fn with_capacity(hosts: usize) -> Self {
        Self { lens: Vec::with_capacity(hosts), starts: Vec::with_capacity(hosts) }
    }

    /// Takes these lengths, whose sum must fit an i32.
    pub fn set(&mut self, lens: impl Iterator<Item = usize>) {
        self.lens.clear();
        self.starts.clear();
        let mut start = 0;
        for len in lens {
            self.starts.push(start as i32);
            self.lens.push(len as i32);
            start += len;
        }
        assert!(i32::try_from(start).is_ok(), "{start} elements in a message");
    }

    /// Length of each part.
    pub fn lens(&self) -> &[i32] {
        &self.lens
    }

    /// Where each part starts.
    pub fn starts(&self) -> &[i32] {
        &self.starts
    }

    /// Elements of all parts.
    pub fn total(&self) -> usize {
        self.lens.iter().map(|len| *len as usize).sum()
    }
}

/// A host of one rank, alone.
pub struct Alone {
    members: Vec<Vec<usize>>,
}

impl Alone {
    /// The one rank.
    pub fn new() -> Self {
        Self { members: vec![vec![0]] }
    }
}

impl Default for Alone {
    fn default() -> Self {
        Self::new()
    }
}

impl Host for Alone {
    fn rank(&self) -> usize {
        0
    }
    fn size(&self) -> usize {
        1
    }
    fn index(&self) -> usize {
        0
    }
    fn members(&self) -> &[Vec<usize>] {
        &self.members
    }
    fn share_bytes(&self, len: usize) -> Result<Shared<u8>> {
        Ok(Shared::private(len))
    }
    fn barrier(&self) {}
    fn lanes(&self) -> usize {
        1
    }
    fn message(&self) -> usize {
        MESSAGE_INSIDE
    }
    fn sum_lane(&self, _values: &mut [f32]) {}
    fn exchange_lane(&self, _width: usize, send: &[u8], _sent: &Parts, receive: &mut [u8], _received: &Parts) {
        receive[..send.len()].copy_from_slice(send);
    }
    fn gather_lane(&self, _width: usize, _whole: &mut [u8], _parts: &Parts) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_range_and_make_short_messages() {
        for (range, ranks, width) in
            [(5..5, 2, 4), (5..6, 3, 4), (0..100_000, 2, 4), (7..99_999, 3, 40), (0..9, 1, 1 << 20)]
        {
            let mut at = range.start;
            for piece in pieces(range.clone(), ranks, MESSAGE, width) {
                assert!(piece.start == at && !piece.is_empty() && piece.len() <= ranks * (MESSAGE / width).max(1));
                at = piece.end;
            }
            assert_eq!(at, range.end);
        }
    }
}
