//! Forward and backward through a stack.

use super::{Stack, disjoint};
use crate::layer::{Backward, Element, Forward, Mode};

/// What a backward pass does with the gradients of the parameters that are there.
pub enum Onto<'a, T> {
    /// Adds to them.
    Add,
    /// Overwrites them.
    Overwrite,
    /// Overwrites them; but layers that [add once](crate::layer::Plan::adds_once) add to this other gradient instead.
    Beside(&'a mut [T]),
}

/// A micro-batch on its way through the layers.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a, T> {
    /// Its samples, at most the planned number.
    pub m: usize,
    /// Training or evaluation.
    pub mode: Mode,
    /// The parameters, laid out as [`Stack::layout`] says.
    pub params: &'a [T],
}

impl<T: Element> Stack<T> {
    /// Runs the layers over the samples in [`Stack::x`], which are the whole batch to layers with stops. `statistics` is
    /// laid out as `state`.
    pub fn forward(&mut self, micro: Pass<'_, T>, state: &[T], statistics: &mut [T]) {
        let mut sums = std::mem::take(&mut self.sums);
        for phase in 0..=self.stops() {
            self.forward_phase(phase, micro, state, statistics, &mut sums);
        }
        self.sums = sums;
    }

    /// Part `phase` of a forward pass. At its end `sums` are the micro-batch's; the next needs those of all micro-batches.
    pub fn forward_phase(
        &mut self,
        phase: usize,
        micro: Pass<'_, T>,
        state: &[T],
        statistics: &mut [T],
        sums: &mut [f64],
    ) {
        let Pass { m, mode, params } = micro;
        let (mut x, mut first) = (self.x.clone(), 0);
        for node in self.nodes.iter_mut().filter(|node| !node.absorbed) {
            let plan = node.layer.plan();
            let last = first + plan.stops;
            if (first..=last).contains(&phase) {
                let (x_len, y_len) = (m * node.input.len(), m * node.output.len());
                if plan.in_place && !node.in_place {
                    self.workspace.copy_within(x.start..x.start + x_len, node.y.start);
                }
                let x_range = if plan.in_place { x.end..x.end } else { x };
                let ranges = [x_range, node.y.clone(), node.cache.clone(), self.scratch.clone(), node.packed.clone()];
                let in_place = plan.in_place;
                let [xs, y, cache, scratch, packed] = disjoint(&mut self.workspace, ranges);
                node.layer.forward(Forward {
                    m,
                    mode,
                    x: if in_place { &[] } else { &xs[..x_len] },
                    y: &mut y[..y_len],
                    params: &params[node.params.clone()],
                    packed,
                    state: &state[node.state.clone()],
                    statistics: &mut statistics[node.state.clone()],
                    cache,
                    scratch,
                    phase: phase - first,
                    sums,
                });
            }
            (x, first) = (node.y.clone(), last);
        }
    }

    /// Runs the layers backward from the gradient in [`Stack::y_and_dy`] into `grads` (laid out as the parameters), as `onto`
    /// says. `finished` gets each stretch of at least `bucket` elements of `grads` as soon as nothing will be added to it any
    /// more, from the tail on, and at last the rest. With `need_dx`, [`Stack::dx`] then holds the gradient of the input.
    pub fn backward<'g>(
        &mut self,
        micro: Pass<'_, T>,
        mut grads: &'g mut [T],
        mut onto: Onto<'_, T>,
        need_dx: bool,
        bucket: usize,
        finished: &mut dyn FnMut(&'g mut [T]),
    ) {
        let mut sums = std::mem::take(&mut self.sums);
        for index in (0..self.nodes.len()).rev() {
            for phase in 0..=self.nodes[index].layer.plan().stops {
                self.backward_node((index, phase), micro, grads, &mut onto, need_dx, &mut sums);
            }
            let own = &self.nodes[index].params;
            if !own.is_empty() && grads.len() - own.start >= bucket {
                let tail;
                (grads, tail) = grads.split_at_mut(own.start);
                finished(tail);
            }
        }
        self.sums = sums;
        finished(grads);
    }

    /// Part `phase` of a backward pass; `sums` as in [`Stack::forward_phase`].
    pub fn backward_phase(
        &mut self,
        phase: usize,
        micro: Pass<'_, T>,
        grads: &mut [T],
        mut onto: Onto<'_, T>,
        need_dx: bool,
        sums: &mut [f64],
    ) {
        let mut first = 0;
        for index in (0..self.nodes.len()).rev() {
            let last = first + self.nodes[index].layer.plan().stops;
            if (first..=last).contains(&phase) {
                self.backward_node((index, phase - first), micro, grads, &mut onto, need_dx, sums);
            }
            first = last;
        }
    }

    /// A phase of a layer's part of a backward pass, if anybody needs it.
    fn backward_node(
        &mut self,
        (index, phase): (usize, usize),
        micro: Pass<'_, T>,
        grads: &mut [T],
        onto: &mut Onto<'_, T>,
        need_dx: bool,
        sums: &mut [f64],
    ) {
        let Pass { m, mode, params } = micro;
        let x = if index == 0 { self.x.clone() } else { self.nodes[index - 1].y.clone() };
        let wants_dx = need_dx || self.nodes[..index].iter().any(|node| !node.params.is_empty());
        let node = &mut self.nodes[index];
        if node.absorbed || (!wants_dx && node.params.is_empty()) {
            return;
        }
        let plan = node.layer.plan();
        let (x_len, y_len, in_place, stops) = (m * node.input.len(), m * node.output.len(), plan.in_place, plan.stops);
        let x_range = if in_place { x.end..x.end } else { x };
        let ranges = [
            x_range,
            node.y.clone(),
            node.cache.clone(),
            self.scratch.clone(),
            node.packed.clone(),
            self.gradients[self.at].clone(),
            self.gradients[1 - self.at].clone(),
        ];
        let [xs, y, cache, scratch, packed, dy, dx] = disjoint(&mut self.workspace, ranges);
        let (overwrites, own) = (plan.overwrites, node.params.clone());
        let (dparams, fresh) = match onto {
            Onto::Beside(elder) if plan.adds_once => (&mut elder[own], false),
            Onto::Add => (&mut grads[own], false),
            Onto::Overwrite | Onto::Beside(_) => (&mut grads[own], true),
        };
        if fresh && phase == 0 && !overwrites {
            dparams.fill(T::ZERO);
        }
        node.layer.backward(Backward {
            m,
            mode,
            x: if in_place { &[] } else { &xs[..x_len] },
            y: &y[..y_len],
            dy: &mut dy[..y_len],
            dx: (wants_dx && !in_place).then(|| &mut dx[..x_len]),
            params: &params[node.params.clone()],
            packed,
            dparams,
            fresh: fresh && overwrites,
            cache,
            scratch,
            phase,
            sums,
        });
        if phase == stops && !in_place && wants_dx {
            self.at = 1 - self.at;
        }
    }

    /// Hands out `grads` in the stretches that [`Stack::backward`] does, without a backward pass.
    pub fn hand_over<'g>(&self, mut grads: &'g mut [T], bucket: usize, finished: &mut dyn FnMut(&'g mut [T])) {
        for node in self.nodes.iter().rev().filter(|node| !node.params.is_empty()) {
            if grads.len() - node.params.start >= bucket {
                let tail;
                (grads, tail) = grads.split_at_mut(node.params.start);
                finished(tail);
            }
        }
        finished(grads);
    }
}
