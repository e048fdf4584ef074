//! A convolution and what follows it, done on the way: [batch norm] → [ReLU] → [2×2 max-pooling].
//!
//! The layers mean what they mean one by one; only their order of work differs, and so the last bits. What stays in memory
//! is the chain's output and a byte a pooled pixel; with batch norm the convolution's output too.

use super::conv2d::gradients;
use super::{Backward, BatchNormSlots, Forward, Mode, Plan, Step};
use crate::kernel::view::{images, images_mut};
use crate::kernel::{Activation, ConvGradients, Fused, Norm, Normalised, Real, Sink, Upstream, Weight, Window};
use std::ops::Range;

/// What a convolution took over.
pub(super) struct Chain {
    window: Window,
    activation: Activation,
    /// And where its parameters begin.
    norm: Option<(BatchNormSlots, usize)>,
    /// Elements of the convolution's output, of a micro-batch, where it is kept.
    output: usize,
    /// Elements that hold a byte for each pooled pixel.
    taps: usize,
}

/// The parts of the cache.
struct Kept<'a, T> {
    /// The convolution's output.
    x: &'a mut [T],
    mean: &'a mut [T],
    /// 1/σ.
    rstd: &'a mut [T],
    taps: &'a mut [u8],
}

impl Chain {
    /// As many of the following steps as can be done on the way, and how many those are; `plan` gets their needs.
    pub(super) fn of<T: Real>(
        fused: &dyn Fused<T>,
        window: &Window,
        m: usize,
        following: &[(Step, usize)],
        plan: &mut Plan,
    ) -> Option<(Self, usize)> {
        let (mut activation, mut norm, mut steps) = (Activation::default(), None, 0);
        for (step, params) in following {
            match step {
                Step::BatchNorm(slots) if steps == 0 => norm = Some((slots.clone(), *params)),
                Step::Relu if !activation.relu => activation.relu = true,
                Step::MaxPool if !activation.pool && window.out_h() > 1 && window.out_w() > 1 => activation.pool = true,
                _ => break,
            }
            steps += 1;
        }
        if steps == 0 {
            return None;
        }
        let pixels = m * window.out_h() * window.out_w();
        let pooled = m * (window.out_h() / 2) * (window.out_w() / 2);
        let output = if norm.is_some() { pixels * window.o } else { 0 };
        let taps = if activation.pool { (pooled * window.o).div_ceil(size_of::<T>()) } else { 0 };
        plan.cache = output + 2 * window.o + taps;
        plan.scratch += fused.sums_len() + 2 * window.o;
        plan.reads_output = norm.is_none() && activation.relu && !activation.pool;
        Some((Self { window: *window, activation, norm, output, taps }, steps))
    }

    fn kept<'a, T: Real>(&self, cache: &'a mut [T]) -> Kept<'a, T> {
        let (x, rest) = cache.split_at_mut(self.output);
        let (mean, rest) = rest.split_at_mut(self.window.o);
        let (rstd, rest) = rest.split_at_mut(self.window.o);
        Kept { x, mean, rstd, taps: bytemuck::cast_slice_mut(&mut rest[..self.taps]) }
    }

    pub(super) fn forward<T: Real>(
        &self,
        fused: &dyn Fused<T>,
        weight: Weight<'_, T>,
        bias: Option<&[T]>,
        io: Forward<'_, T>,
    ) {
        let (window, m, activation) = (&self.window, io.m, self.activation);
        let Kept { x: kept, mean, rstd, taps } = self.kept(io.cache);
        let x = images(m, window.input(), io.x);
        let (sums, rest) = io.scratch.split_at_mut(fused.sums_len());
        let (scale, rest) = rest.split_at_mut(window.o);
        let (offset, scratch) = rest.split_at_mut(window.o);
        let Some((slots, params)) = &self.norm else {
            let sink = Sink::Activated { activation, y: io.y, taps };
            return fused.forward(x, weight, bias, sink, scratch);
        };
        let sink = Sink::Moments { y: &mut *kept, moments: &mut *sums };
        fused.forward(x, weight, bias, sink, scratch);
        if let Mode::Train { share, .. } = io.mode {
            fused.moments(m, sums, mean, rstd);
            slots.finish(m * window.out_h() * window.out_w(), share, mean, rstd, io.statistics);
        } else {
            slots.running(io.state, mean, rstd);
        }
        slots.scale_and_offset(&io.params[*params..], rstd, scale, offset);
        let norm = Norm { mean, scale, offset };
        fused.normalise(images(m, window.output(), kept), norm, activation, io.y, taps);
    }

    pub(super) fn backward<T: Real>(
        &self,
        fused: &dyn Fused<T>,
        weight: Range<usize>,
        bias: Option<Range<usize>>,
        io: Backward<'_, T>,
    ) {
        let (window, m, o) = (&self.window, io.m, self.window.o);
        let Kept { x, mean, rstd, taps } = self.kept(io.cache);
        let (sums, rest) = io.scratch.split_at_mut(fused.sums_len());
        let (scale, rest) = rest.split_at_mut(o);
        let (offset, scratch) = rest.split_at_mut(o);
        let mut from = Upstream { activation: self.activation, dy: io.dy, y: io.y, taps, normalised: None };
        if let Some((slots, params)) = &self.norm {
            slots.scale_and_offset(&io.params[*params..], rstd, scale, offset);
            let norm = Norm { mean, scale, offset };
            from.normalised = Some(Normalised { x, norm, slope: [&scale[..]; 3] });
            fused.norm_sums(m, &from, sums);
            let (dbeta, rest) = sums.split_at_mut(o);
            let dgamma = &mut rest[..o];
            for (dgamma, rstd) in dgamma.iter_mut().zip(&*rstd) {
                *dgamma *= *rstd;
            }
            slots.add_gradients(dgamma, dbeta, &mut io.dparams[*params..]);
            BatchNormSlots::slope(m * window.out_h() * window.out_w(), rstd, scale, dgamma, dbeta);
            from.normalised = Some(Normalised { x, norm, slope: [scale, dgamma, dbeta] });
        }
        let panels = &io.params[weight.clone()];
        let (dpanels, dbias) = gradients(weight, bias, io.dparams);
        let gradients = ConvGradients { dx: io.dx.map(|dx| images_mut(m, window.input(), dx)), dpanels, dbias };
        let weight = Weight { panels, packed: io.packed };
        fused.backward(images(m, window.input(), io.x), &from, weight, gradients, scratch);
    }
}
