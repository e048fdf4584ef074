//! `batch_norm2d` and `batch_norm1d`: y = γ·(x − μ)/√(σ² + ε) + β per channel, as torch.nn.BatchNorm2d and 1d
//! (Ioffe and Szegedy, 2015). μ and σ² are of the micro-batch in training, with `sync` of the global batch (as
//! torch.nn.SyncBatchNorm's), and the running ones in evaluation.

use super::registry::{Entry, Example, Place, wrong_input};
use super::{Backward, Forward, Initial, Layer, Mode, Op, Plan, Statistics, Step};
use crate::arena::Storage;
use crate::config::Component;
use crate::error::Result;
use crate::kernel::view::{Rows, RowsMut, rows, rows_mut};
use crate::kernel::{Real, isa::dispatch};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::ops::Range;

pub(super) const ENTRY_2D: Entry = Entry {
    name: "batch_norm2d",
    about: "normalises each channel over the micro-batch (with sync, the global batch) and all pixels",
    keys: "eps = 1e-5, momentum = 0.1, affine = true, sync = false",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "", input: Shape::Image { c: 3, h: 2, w: 4 } },
        Example { keys: "affine = false\neps = 0.01", input: Shape::Image { c: 2, h: 3, w: 3 } },
        Example { keys: "sync = true", input: Shape::Image { c: 3, h: 2, w: 3 } },
    ],
};

pub(super) const ENTRY_1D: Entry = Entry {
    name: "batch_norm1d",
    about: "normalises each feature over the micro-batch (with sync, the global batch) and time",
    keys: "eps = 1e-5, momentum = 0.1, affine = true, sync = false",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "", input: Shape::Vector { n: 5 } },
        Example { keys: "", input: Shape::Sequence { t: 3, f: 4 } },
    ],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default = "default_eps")]
    eps: f64,
    #[serde(default = "default_momentum")]
    momentum: f64,
    #[serde(default = "yes")]
    affine: bool,
    #[serde(default)]
    sync: bool,
}

fn default_eps() -> f64 {
    1e-5
}

fn default_momentum() -> f64 {
    0.1
}

fn yes() -> bool {
    true
}

struct BatchNorm {
    plan: Plan,
    channels: usize,
    /// Rows of `channels` values a sample has.
    rows: usize,
    norm: BatchNormSlots,
}

/// Where a batch norm's parameters and state lie, its ε, and what it does with a micro-batch's statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNormSlots {
    eps: f64,
    weight: Option<Range<usize>>,
    bias: Option<Range<usize>>,
    mean: Range<usize>,
    var: Range<usize>,
}

impl BatchNormSlots {
    /// Turns the biased variance of `count` values into 1/σ, and adds mean and unbiased variance, which is what torch
    /// keeps, times `share` to the step's statistics.
    pub(super) fn finish<T: Real>(&self, count: usize, share: f64, mean: &[T], var: &mut [T], statistics: &mut [T]) {
        let unbiased = count as f64 / (count.max(2) - 1) as f64;
        for i in 0..mean.len() {
            statistics[self.mean.start + i] += T::of(share) * mean[i];
            statistics[self.var.start + i] += T::of(share * unbiased) * var[i];
            var[i] = T::ONE / (var[i] + T::of(self.eps)).sqrt();
        }
    }

    /// Mean and 1/σ as training left them.
    pub(super) fn running<T: Real>(&self, state: &[T], mean: &mut [T], rstd: &mut [T]) {
        for i in 0..mean.len() {
            mean[i] = state[self.mean.start + i];
            rstd[i] = T::ONE / (state[self.var.start + i] + T::of(self.eps)).sqrt();
        }
    }

    /// y = scale·(x − mean) + offset.
    pub(super) fn scale_and_offset<T: Real>(&self, params: &[T], rstd: &[T], scale: &mut [T], offset: &mut [T]) {
        for i in 0..rstd.len() {
            let gamma = self.weight.clone().map_or(T::ONE, |weight| params[weight.start + i]);
            scale[i] = gamma * rstd[i];
            offset[i] = self.bias.clone().map_or(T::ZERO, |bias| params[bias.start + i]);
        }
    }

    /// Adds dγ = Σ dy·x̂ and dβ = Σ dy to `dparams`.
    pub(super) fn add_gradients<T: Real>(&self, dgamma: &[T], dbeta: &[T], dparams: &mut [T]) {
        if let (Some(weight), Some(bias)) = (self.weight.clone(), self.bias.clone()) {
            for i in 0..dgamma.len() {
                dparams[weight.start + i] += dgamma[i];
                dparams[bias.start + i] += dbeta[i];
            }
        }
    }

    /// dx = a·dy + b·(x − mean) + d: from `scale` a, from dγ b and from dβ d, each in the other's place.
    pub(super) fn slope<T: Real>(count: usize, rstd: &[T], scale: &[T], dgamma: &mut [T], dbeta: &mut [T]) {
        let count = T::of(count as f64);
        for i in 0..rstd.len() {
            dgamma[i] = -scale[i] * rstd[i] * dgamma[i] / count;
            dbeta[i] = -scale[i] * dbeta[i] / count;
        }
    }
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    let (channels, rows) = match (component.kind.as_str(), place.input) {
        ("batch_norm2d", Shape::Image { c, h, w }) => (c, h * w),
        ("batch_norm2d", _) => return Err(wrong_input(component, place.input, "an image", "use batch_norm1d here")),
        (_, Shape::Sequence { t, f }) => (f, t),
        (_, Shape::Vector { n }) => (n, 1),
        _ => return Err(wrong_input(component, place.input, "a vector or a sequence", "use batch_norm2d here")),
    };
    if keys.eps.is_nan() || keys.eps <= 0.0 {
        return Err(component.error("eps", format!("is {}", keys.eps), "give a small positive number"));
    }
    if !(0.0..=1.0).contains(&keys.momentum) {
        return Err(component.error("momentum", format!("is {}", keys.momentum), "give a number from 0 to 1"));
    }
    let mut plan = Plan::new(Op::BatchNorm { eps: keys.eps }, place.input);
    let mut parameter = |name: &str, value: f64| {
        keys.affine.then(|| plan.parameter(name, &[channels], Storage::Plain, Initial::Constant(value)))
    };
    let (weight, bias) = (parameter("weight", 1.0), parameter("bias", 0.0));
    let mean = plan.state("running_mean", channels, 0.0, keys.momentum);
    let var = plan.state("running_var", channels, 1.0, keys.momentum);
    // Mean and 1/σ of the micro-batch, kept for backward.
    plan.cache = 2 * channels;
    plan.scratch = 6 * channels;
    let norm = BatchNormSlots { eps: keys.eps, weight, bias, mean, var };
    plan.statistics = vec![Statistics { values: rows, sync: keys.sync }];
    if keys.sync {
        (plan.stops, plan.sums) = (1, 1 + 2 * channels);
    } else if component.kind == "batch_norm2d" {
        plan.step = Some(Step::BatchNorm(norm.clone()));
    }
    Ok(Box::new(BatchNorm { plan, channels, rows, norm }))
}

/// Rows summed one by one before their sum joins the total: keeps the rounding error of long f32 sums small.
const BLOCK: usize = 64;

/// totals += block, leaving what rounding took in `lost` (Knuth's two-sum).
#[inline(always)]
fn join<T: Real>(totals: &mut [T], lost: &mut [T], block: &[T]) {
    for ((total, lost), block) in totals.iter_mut().zip(lost).zip(block) {
        let sum = *total + *block;
        let added = sum - *total;
        *lost += (*total - (sum - added)) + (*block - added);
        *total = sum;
    }
}

/// totals += lost.
#[inline(always)]
fn give_back<T: Real>(totals: &mut [T], lost: &[T]) {
    for (total, lost) in totals.iter_mut().zip(lost) {
        *total += *lost;
    }
}

dispatch! {
    /// sums(C) = Σ over rows of x − shift.
    fn shifted_sums<T>(c: usize, x: &[T], shift: &[T], block: &mut [T], lost: &mut [T], sums: &mut [T]) {
        sums.fill(T::ZERO);
        lost.fill(T::ZERO);
        for rows in x.chunks(BLOCK * c) {
            block.fill(T::ZERO);
            for row in rows.chunks_exact(c) {
                for ((sum, x), shift) in block.iter_mut().zip(row).zip(shift) {
                    *sum += *x - *shift;
                }
            }
            join(sums, lost, block);
        }
        give_back(sums, lost);
    }
}

dispatch! {
    /// sums(C) = Σ over rows of (x − mean)².
    fn squared_sums<T>(c: usize, x: &[T], mean: &[T], block: &mut [T], lost: &mut [T], sums: &mut [T]) {
        sums.fill(T::ZERO);
        lost.fill(T::ZERO);
        for rows in x.chunks(BLOCK * c) {
            block.fill(T::ZERO);
            for row in rows.chunks_exact(c) {
                for ((sum, x), mean) in block.iter_mut().zip(row).zip(mean) {
                    *sum += (*x - *mean) * (*x - *mean);
                }
            }
            join(sums, lost, block);
        }
        give_back(sums, lost);
    }
}

dispatch! {
    /// y = scale·(x − mean) + offset, per channel. The difference comes first: near an output of 0, where a ReLU
    /// decides, it is exact.
    fn normalise<T>(x: Rows<'_, T>, mean: &[T], scale: &[T], offset: &[T], y: RowsMut<'_, T>) {
        let c = x.ncols();
        let (x, y) = (dense(&x), y.into_slice().expect("rows lie dense"));
        let (mean, scale, offset) = (&mean[..c], &scale[..c], &offset[..c]);
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            for i in 0..c {
                y[i] = scale[i] * (x[i] - mean[i]) + offset[i];
            }
        }
    }
}

dispatch! {
    /// dbeta(C) = Σ dy and dgamma(C) = Σ dy·x̂, with x̂ = (x − mean)·rstd.
    fn gradient_sums<T>(
        x: Rows<'_, T>, dy: Rows<'_, T>, mean: &[T], rstd: &[T], block: &mut [T], dbeta: &mut [T], dgamma: &mut [T],
    ) {
        let (c, x, dy) = (x.ncols(), dense(&x), dense(&dy));
        let (block, lost) = block.split_at_mut(2 * c);
        lost.fill(T::ZERO);
        let (beta_lost, gamma_lost) = lost.split_at_mut(c);
        dbeta.fill(T::ZERO);
        dgamma.fill(T::ZERO);
        let (beta_block, gamma_block) = block.split_at_mut(c);
        for (xs, dys) in x.chunks(BLOCK * c).zip(dy.chunks(BLOCK * c)) {
            beta_block.fill(T::ZERO);
            gamma_block.fill(T::ZERO);
            for (x, dy) in xs.chunks_exact(c).zip(dys.chunks_exact(c)) {
                for i in 0..c {
                    beta_block[i] += dy[i];
                    gamma_block[i] += dy[i] * (x[i] - mean[i]);
                }
            }
            join(dbeta, beta_lost, beta_block);
            join(dgamma, gamma_lost, gamma_block);
        }
        give_back(dbeta, beta_lost);
        give_back(dgamma, gamma_lost);
        for (dgamma, rstd) in dgamma.iter_mut().zip(rstd) {
            *dgamma *= *rstd;
        }
    }
}

dispatch! {
    /// dx = a·dy + b·(x − mean) + d, per channel.
    fn combine<T>(x: Rows<'_, T>, dy: Rows<'_, T>, mean: &[T], slope: [&[T]; 3], dx: RowsMut<'_, T>) {
        let c = x.ncols();
        let (x, dy, dx) = (dense(&x), dense(&dy), dx.into_slice().expect("rows lie dense"));
        let [a, b, d] = slope.map(|each| &each[..c]);
        for ((x, dy), dx) in x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
            for i in 0..c {
                dx[i] = a[i] * dy[i] + b[i] * (x[i] - mean[i]) + d[i];
            }
        }
    }
}

/// The elements of rows that lie one after the other.
fn dense<'a, T>(rows: &Rows<'a, T>) -> &'a [T] {
    rows.to_slice().expect("rows lie dense")
}

impl BatchNorm {
    /// Mean and biased variance of a micro-batch.
    fn moments<T: Real>(&self, x: &[T], mean: &mut [T], var: &mut [T], scratch: &mut [T]) {
        let c = self.channels;
        let count = T::of((x.len() / c) as f64);
        let (zeros, rest) = scratch.split_at_mut(c);
        let (block, rest) = rest.split_at_mut(c);
        let (lost, sums) = rest[..2 * c].split_at_mut(c);
        zeros.fill(T::ZERO);
        shifted_sums(c, x, zeros, block, lost, sums);
        for (mean, sum) in mean.iter_mut().zip(&*sums) {
            *mean = *sum / count;
        }
        squared_sums(c, x, mean, block, lost, sums);
        for (var, sum) in var.iter_mut().zip(&*sums) {
            *var = *sum / count;
        }
    }
}

/// Leaves n and two values per channel, to be summed over micro-batches.
fn leave(count: usize, pairs: impl Iterator<Item = (f64, f64)>, sums: &mut [f64]) {
    sums[0] = count as f64;
    for ((first, second), sums) in pairs.zip(sums[1..].as_chunks_mut::<2>().0) {
        // Never −0, which would not survive a sum over ranks.
        *sums = [first + 0.0, second + 0.0];
    }
}

/// The way back: n, and the two values of each channel.
fn summed(sums: &[f64]) -> (usize, impl Iterator<Item = (f64, f64)>) {
    (sums[0] as usize, sums[1..].as_chunks::<2>().0.iter().map(|[first, second]| (*first, *second)))
}

impl<T: Real> Layer<T> for BatchNorm {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        let c = self.channels;
        let m = io.m * self.rows;
        let mut count = m;
        let (mean, rstd) = io.cache[..2 * c].split_at_mut(c);
        if let Mode::Train { share, .. } = io.mode {
            if io.phase == 0 {
                self.moments(io.x, mean, rstd, io.scratch);
            } else {
                let (n, pairs) = summed(io.sums);
                count = n;
                for ((sum, squares), (mean, var)) in pairs.zip(mean.iter_mut().zip(rstd.iter_mut())) {
                    let middle = sum / n as f64;
                    (*mean, *var) = (T::of(middle), T::of((squares / n as f64 - middle * middle).max(0.0)));
                }
            }
            if io.phase < self.plan.stops {
                let n = count as f64;
                let moments = mean.iter().zip(&*rstd).map(|(mean, var)| (mean.to_f64(), var.to_f64()));
                return leave(count, moments.map(|(mean, var)| (n * mean, n * (var + mean * mean))), io.sums);
            }
            self.norm.finish(count, share, mean, rstd, io.statistics);
        } else {
            self.norm.running(io.state, mean, rstd);
        }
        let (scale, offset) = io.scratch[..2 * c].split_at_mut(c);
        self.norm.scale_and_offset(io.params, rstd, scale, offset);
        normalise(rows(m, c, io.x), mean, scale, offset, rows_mut(m, c, io.y));
    }

    /// dx = γ·rstd·(dy − mean(dy) − x̂·mean(dy·x̂)), dγ = Σ dy·x̂, dβ = Σ dy.
    fn backward(&mut self, io: Backward<'_, T>) {
        let c = self.channels;
        let m = io.m * self.rows;
        let mut count = m;
        let (mean, rstd) = io.cache[..2 * c].split_at_mut(c);
        let (dbeta, rest) = io.scratch.split_at_mut(c);
        let (dgamma, block) = rest.split_at_mut(c);
        if io.phase == 0 {
            gradient_sums(rows(m, c, io.x), rows(m, c, io.dy), mean, rstd, &mut block[..4 * c], dbeta, dgamma);
            self.norm.add_gradients(dgamma, dbeta, io.dparams);
        } else {
            let (n, pairs) = summed(io.sums);
            count = n;
            for ((beta, gamma), (dbeta, dgamma)) in pairs.zip(dbeta.iter_mut().zip(dgamma.iter_mut())) {
                (*dbeta, *dgamma) = (T::of(beta), T::of(gamma));
            }
        }
        if io.phase < self.plan.stops {
            let pairs = dbeta.iter().zip(&*dgamma).map(|(beta, gamma)| (beta.to_f64(), gamma.to_f64()));
            return leave(count, pairs, io.sums);
        }
        let Some(dx) = io.dx else { return };
        let (scale, offset) = block[..2 * c].split_at_mut(c);
        self.norm.scale_and_offset(io.params, rstd, scale, offset);
        BatchNormSlots::slope(count, rstd, scale, dgamma, dbeta);
        let slope = [&*scale, &*dgamma, &*dbeta];
        combine(rows(m, c, io.x), rows(m, c, io.dy), mean, slope, rows_mut(m, c, dx));
    }
}
