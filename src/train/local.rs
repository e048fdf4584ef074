//! Local SGD (Stich, 2019): between averages each host goes its own way, on its share of each batch.

use super::step::NORM;
use super::trainer::Trainer;
use crate::shard::own;

/// Steps of a host on its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Local {
    /// Steps from one average over hosts to the next.
    pub every: u64,
    /// This host's part in an average: its share of the ranks.
    pub weight: f64,
    /// Whether hosts may differ.
    pub strayed: bool,
}

impl Trainer<'_> {
    /// This host's samples of a global batch.
    pub(super) fn host_samples(&self, batch: usize) -> usize {
        let (leaves, host) = (batch.div_ceil(self.micro), self.exchange.host());
        let owned = host.members()[host.index()].iter().map(|rank| own(leaves, *rank, self.comm.size()));
        owned.map(|mine| (mine.end * self.micro).min(batch) - (mine.start * self.micro).min(batch)).sum()
    }

    /// The norm of the mean gradient of this host's samples. Loss, right answers and the mean of the hosts' squared norms
    /// are summed over all.
    pub(super) fn sum_on_host(&mut self, local: Local, batch: usize, first_extra: usize) -> f64 {
        let scale = self.host_scale(batch);
        let squares = self.exchange.sum_on_host(|squares, riders| {
            riders[first_extra + NORM] += (local.weight * squares * scale * scale) as f32;
        });
        squares.sqrt() * scale
    }

    /// What makes a sum over the global batch a mean over this host's samples.
    pub(super) fn host_scale(&self, batch: usize) -> f64 {
        batch as f64 / self.host_samples(batch).max(1) as f64
    }

    /// Notes a step of its own, and averages when that is due.
    pub(super) fn stray(&mut self, step: u64) {
        if let Some(local) = &mut self.local {
            local.strayed = true;
            if (step + 1).is_multiple_of(local.every) {
                self.average();
            }
        }
    }

    /// Brings the hosts together, if they have gone their own ways: weights and moments become those of all, in the
    /// hosts' shares. Collective.
    pub fn average(&mut self) {
        let Some(local) = self.local.as_mut().filter(|local| local.strayed) else { return };
        local.strayed = false;
        let weight = local.weight as f32;
        self.replica.average(self.exchange.host(), weight);
    }
}
