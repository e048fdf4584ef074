//! Local SGD (Stich, 2019): between averages each host goes its own way, on its share of each batch.

use super::step::NORM;
use super::trainer::{Trainer, over};
use crate::data::{Dataset, Part};
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
    /// What a mean over this host's samples of a global batch is divided by.
    fn host_total(&self, data: &Dataset, batch: &[u32]) -> f64 {
        let (leaves, host) = (batch.len().div_ceil(self.micro), self.exchange.host());
        let owned = host.members()[host.index()].iter().map(|rank| own(leaves, *rank, self.comm.size()));
        let end = |leaf: usize| (leaf * self.micro).min(batch.len());
        let samples = owned.map(|mine| &batch[end(mine.start)..end(mine.end)]);
        samples.map(|samples| self.goal.total(data, Part::Train, samples.iter().copied())).sum()
    }

    /// The norm of the mean gradient of this host's samples. Loss, right answers and the mean of the hosts' squared norms
    /// are summed over all.
    pub(super) fn sum_on_host(&mut self, local: Local, data: &Dataset, batch: &[u32], first_extra: usize) -> f64 {
        let scale = self.host_scale(data, batch);
        let squares = self.exchange.sum_on_host(|squares, riders| {
            riders[first_extra + NORM] += (local.weight * squares * scale * scale) as f32;
        });
        squares.sqrt() * scale
    }

    /// What makes a sum over the global batch a mean over this host's samples.
    pub(super) fn host_scale(&self, data: &Dataset, batch: &[u32]) -> f64 {
        over(self.goal.total(data, Part::Train, batch.iter().copied()), self.host_total(data, batch))
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
