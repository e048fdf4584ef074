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
    /// Sums element by element over the lane, in place, as the MPI library does: best for few.
    fn sum_lane(&self, values: &mut [f32]);
    /// Starts to send `len` bytes to host `to` of the lane.
    ///
    /// # Safety
    /// The bytes stay where and what they are until the message is finished.
    unsafe fn send(&self, to: usize, bytes: *const u8, len: usize);
    /// Starts to receive `len` bytes from host `from` of the lane. Messages come in the order in which that host sends them.
    ///
    /// # Safety
    /// The bytes stay where they are, and nobody touches them, until the message is finished.
    unsafe fn receive(&self, from: usize, bytes: *mut u8, len: usize);
    /// How many messages were started since all were finished.
    fn started(&self) -> usize;
    /// Waits for these of them.
    fn finish(&self, messages: Range<usize>);
    /// Waits for all of them, and counts from 0 again.
    fn finish_all(&self);
}

impl dyn Host + '_ {
    /// Shared memory of `len` zero elements.
    ///
    /// # Errors
    /// As [`Host::share_bytes`].
    pub fn share<T: Pod>(&self, len: usize) -> Result<Shared<T>> {
        Ok(self.share_bytes(len * size_of::<T>())?.cast())
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
    // There is no other host.
    unsafe fn send(&self, _to: usize, _bytes: *const u8, _len: usize) {}
    unsafe fn receive(&self, _from: usize, _bytes: *mut u8, _len: usize) {}
    fn started(&self) -> usize {
        0
    }
    fn finish(&self, _messages: Range<usize>) {}
    fn finish_all(&self) {}
}
