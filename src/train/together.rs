//! Passes over all micro-batches of a rank side by side, for layers that stop for sums over the global batch
//! (`batch_norm` with `sync`): each micro-batch has activations of its own.

use super::clock::Phase;
use super::step::{Batch, split};
use super::trainer::Trainer;
use crate::comm::Comm;
use crate::data::Targets;
use crate::layer::{Onto, Stack};
use std::ops::Range;

/// Room for one micro-batch.
struct Lane {
    stack: Stack<f32>,
    targets: Targets,
    /// Whether its gradient overwrites what is there.
    fresh: bool,
}

/// Room for the micro-batches of a rank.
pub(super) struct Together {
    lanes: Vec<Lane>,
    /// Of each micro-batch of the global batch, what is summed at a stop.
    sums: Vec<f64>,
    /// Values of one.
    width: usize,
    stops: usize,
}

impl Together {
    /// With a stack for each micro-batch of a rank, of which there are at least one, in batches of up to `leaves`.
    pub fn new(stacks: Vec<Stack<f32>>, leaves: usize) -> Self {
        let (width, stops) = stacks.first().map_or((0, 0), |stack| (stack.sums_len(), stack.stops()));
        let lanes = stacks.into_iter().map(|stack| Lane { stack, targets: Targets::default(), fresh: false }).collect();
        Self { lanes, sums: vec![0.0; leaves * width], width, stops }
    }

    /// Elements of the workspaces.
    pub fn workspace_len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.stack.workspace_len()).sum()
    }

    /// As [`Stack::prepare`].
    pub fn prepare(&mut self, params: &[f32]) {
        self.lanes.iter_mut().for_each(|lane| lane.stack.prepare(params));
    }

    /// Gives each of `mine` the sum over all micro-batches. The others' are zero here and so add nothing: which rank holds
    /// what makes no difference to any bit.
    fn sum(&mut self, comm: &dyn Comm, leaves: usize, mine: &Range<usize>) {
        let width = self.width;
        let all = &mut self.sums[..leaves * width];
        all[..mine.start * width].fill(0.0);
        all[mine.end * width..].fill(0.0);
        comm.sum_f64(all);
        let (total, others) = all.split_at_mut(width);
        for of_one in others.chunks_exact(width) {
            total.iter_mut().zip(of_one).for_each(|(total, value)| *total += value);
        }
        for of_one in others.chunks_exact_mut(width) {
            of_one.copy_from_slice(total);
        }
    }
}

impl Trainer<'_> {
    /// Forward and backward of all my micro-batches, which wait for the others' sums where layers stop.
    pub(super) fn pass_together(&mut self, batch: Batch, mine: Range<usize>) {
        let Some(together) = &mut self.together else { return };
        let (params, state) = (&self.replica.params, &self.replica.state);
        let leaves = batch.samples.len().div_ceil(self.micro);
        for (micro, lane) in batch.micro_batches(mine.clone()).zip(&mut together.lanes) {
            batch.fill(&micro, &mut lane.stack, &mut lane.targets);
            lane.fresh = self.exchange.open(micro.index);
        }
        self.clock.lap(Phase::Data);
        for phase in 0..=together.stops {
            if phase > 0 {
                together.sum(self.comm, leaves, &mine);
                self.clock.lap(Phase::Communication);
            }
            for (number, micro) in batch.micro_batches(mine.clone()).enumerate() {
                let leaf = self.exchange.leaf(micro.index);
                let [_, statistics, extras] = split(leaf, params.len(), state.len());
                let sums = &mut together.sums[micro.index * together.width..][..together.width];
                let (m, lane) = (micro.m(), &mut together.lanes[number]);
                lane.stack.forward_phase(phase, m, micro.mode, params, state, statistics, sums);
                if phase == together.stops {
                    batch.judge(&self.goal, m, &mut lane.stack, &lane.targets, extras);
                }
            }
            self.clock.lap(Phase::Forward);
        }
        for phase in 0..=together.stops {
            if phase > 0 {
                together.sum(self.comm, leaves, &mine);
                self.clock.lap(Phase::Communication);
            }
            for (number, micro) in batch.micro_batches(mine.clone()).enumerate() {
                let leaf = self.exchange.leaf(micro.index);
                let [gradient, ..] = split(leaf, params.len(), state.len());
                let sums = &mut together.sums[micro.index * together.width..][..together.width];
                let Lane { stack, fresh, .. } = &mut together.lanes[number];
                let onto = if *fresh { Onto::Overwrite } else { Onto::Add };
                stack.backward_phase(phase, micro.m(), micro.mode, params, gradient, onto, false, sums);
            }
            self.clock.lap(Phase::Backward);
        }
        mine.for_each(|index| self.exchange.finish(index));
    }
}
