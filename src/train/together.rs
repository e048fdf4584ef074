//! Passes over all micro-batches of a rank side by side, for layers that stop for sums over the global batch
//! (`batch_norm` with `sync`): each micro-batch has activations of its own.

use super::clock::Phase;
use super::step::{LOSS, Work, split};
use super::trainer::Trainer;
use crate::comm::Comm;
use crate::data::Targets;
use crate::layer::{Onto, Pass, Stack};
use std::ops::Range;

/// Room for one micro-batch.
struct Lane {
    stack: Stack<f32>,
    targets: Targets,
}

/// Room for the micro-batches of a rank: at least one.
pub(super) struct Together {
    lanes: Vec<Lane>,
    /// Of each micro-batch of the global batch, what is summed at a stop.
    sums: Vec<f64>,
}

impl Together {
    /// With a stack for each micro-batch of a rank, in batches of up to `leaves`.
    pub fn new(stacks: Vec<Stack<f32>>, leaves: usize) -> Self {
        let lanes: Vec<Lane> = stacks.into_iter().map(|stack| Lane { stack, targets: Targets::default() }).collect();
        let sums = vec![0.0; leaves * lanes[0].stack.sums_len()];
        Self { lanes, sums }
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
        let width = self.lanes[0].stack.sums_len();
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

/// A way through the layers.
#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Forward,
    Backward,
}

impl Trainer<'_> {
    /// Forward and backward of all my micro-batches, which wait for the others' sums where layers stop.
    pub(super) fn pass_together(&mut self, work: Work, mine: Range<usize>) {
        let Some(together) = &mut self.together else { return };
        self.clock.enter(Phase::Data);
        for (micro, lane) in work.micro_batches(mine.clone()).zip(&mut together.lanes) {
            work.fill(&micro, &mut lane.stack, &mut lane.targets);
        }
        let (stops, leaves) = (together.lanes[0].stack.stops(), work.batch.samples.len().div_ceil(self.micro));
        for pass in [Direction::Forward, Direction::Backward] {
            for phase in 0..=stops {
                if let (Some(together), 1..) = (&mut self.together, phase) {
                    self.clock.enter(Phase::Communication);
                    together.sum(self.comm, leaves, &mine);
                }
                self.clock.enter(if pass == Direction::Forward { Phase::Forward } else { Phase::Backward });
                self.phase_together(work, mine.clone(), pass, phase);
            }
        }
        mine.for_each(|index| self.exchange.finish(index));
    }

    /// One phase of a pass of all my micro-batches.
    fn phase_together(&mut self, work: Work, mine: Range<usize>, pass: Direction, phase: usize) {
        let Some(together) = &mut self.together else { return };
        let (params, state) = (&self.replica.params, &self.replica.state);
        for (micro, lane) in work.micro_batches(mine).zip(&mut together.lanes) {
            let (m, stack) = (micro.m(), &mut lane.stack);
            let on_its_way = Pass { m, mode: micro.mode, params };
            let width = stack.sums_len();
            let sums = &mut together.sums[micro.index * width..][..width];
            if (pass, phase) == (Direction::Forward, 0) {
                self.exchange.open(micro.index);
            }
            let fresh = self.exchange.is_fresh(micro.index);
            let [gradient, statistics, extras] = split(self.exchange.leaf(micro.index), params.len(), state.len());
            if pass == Direction::Backward {
                let onto = if fresh { Onto::Overwrite } else { Onto::Add };
                stack.backward_phase(phase, on_its_way, gradient, onto, false, sums);
                continue;
            }
            stack.forward_phase(phase, on_its_way, state, statistics, sums);
            if phase == stack.stops() {
                work.judge(&self.goal, m, stack, &lane.targets, extras);
                if !extras[LOSS].is_finite() && self.not_finite.is_none() {
                    self.not_finite = stack.first_not_finite(m);
                }
            }
        }
    }
}
