//! The ranks of a host as one machine.

use super::Shared;
use crate::error::Result;

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
    /// Shared memory of `len` zeros.
    ///
    /// # Errors
    /// The host has not enough of it; on all ranks.
    fn share_f32(&self, len: usize) -> Result<Shared<f32>>;
    /// As [`Host::share_f32`].
    fn share_f64(&self, len: usize) -> Result<Shared<f64>>;
    /// As [`Host::share_f32`].
    fn share_u8(&self, len: usize) -> Result<Shared<u8>>;
    /// Waits for the ranks of this host.
    fn barrier(&self);
    /// Lanes there are: ranks of the host that has fewest. A rank of a higher number has no lane.
    fn lanes(&self) -> usize;
    /// Sums element by element over the lane, in place.
    fn sum_lane(&self, values: &mut [f32]);
    /// Sends `sent[h]` elements of `send` to host h of the lane, one after the other, and gets `received[h]` from it.
    fn exchange_lane(&self, send: &[f32], sent: &[i32], receive: &mut [f32], received: &[i32]);
    /// Everybody in the lane gets all parts of `whole`: part h, of `counts[h]` elements, is host h's.
    fn gather_lane(&self, whole: &mut [f32], counts: &[i32]);
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
    fn share_f32(&self, len: usize) -> Result<Shared<f32>> {
        Ok(Shared::private(len))
    }
    fn share_f64(&self, len: usize) -> Result<Shared<f64>> {
        Ok(Shared::private(len))
    }
    fn share_u8(&self, len: usize) -> Result<Shared<u8>> {
        Ok(Shared::private(len))
    }
    fn barrier(&self) {}
    fn lanes(&self) -> usize {
        1
    }
    fn sum_lane(&self, _values: &mut [f32]) {}
    fn exchange_lane(&self, send: &[f32], _sent: &[i32], receive: &mut [f32], _received: &[i32]) {
        receive[..send.len()].copy_from_slice(send);
    }
    fn gather_lane(&self, _whole: &mut [f32], _counts: &[i32]) {}
}
