//! Depthwise convolutions for f32, of which each channel has a kernel of its own: row by row and tap by tap, channels side
//! by side in vectors, as they lie both in an image and in a panel.

use super::{Conv, ConvGradients, Window};
use crate::kernel::column_sum::column_sums;
use crate::kernel::isa::dispatch;
use crate::kernel::view::{Images, ImagesMut, rows};
use crate::kernel::{Isa, Needs, PANEL, Weight};
use std::ops::Range;

pub(super) struct Depthwise {
    pub isa: Isa,
    pub window: Window,
}

/// A row of output pixels and the input pixels under one tap.
struct Run {
    tap: usize,
    /// First element of the first output pixel, and of the input pixel under it.
    output: usize,
    input: usize,
    pixels: usize,
    /// From one input pixel to the next.
    step: usize,
}

/// The outputs along an axis whose tap lies inside the input, and the input under the first of them.
#[inline(always)]
fn inside(inputs: usize, outputs: usize, reach: usize, padding: usize, stride: usize) -> (Range<usize>, usize) {
    let first = padding.saturating_sub(reach).div_ceil(stride);
    let last = (inputs + padding).saturating_sub(reach).div_ceil(stride).min(outputs);
    (first..last.max(first), (first * stride + reach).saturating_sub(padding))
}

/// A tap and a row of outputs; None where the row under it lies in the padding.
#[inline(always)]
fn run(window: &Window, row: usize, tap: usize) -> Option<Run> {
    let Window { c, h, w, kernel, stride, padding, dilation, .. } = *window;
    let (down, across) = (tap / kernel.1 * dilation.0, tap % kernel.1 * dilation.1);
    let under = (row * stride.0 + down).checked_sub(padding.0).filter(|under| *under < h)?;
    let out_w = window.out_w();
    let (columns, first) = inside(w, out_w, across, padding.1, stride.1);
    let (output, input) = ((row * out_w + columns.start) * c, (under * w + first) * c);
    Some(Run { tap, output, input, pixels: columns.len(), step: stride.1 * c })
}

/// The rows of outputs, each with every tap.
#[inline(always)]
fn rows_and_taps(window: &Window) -> impl Iterator<Item = (usize, usize)> {
    let taps = window.depth();
    (0..window.out_h() * taps).map(move |index| (index / taps, index % taps))
}

/// The panels of `c` channels: first channel, and how many.
#[inline(always)]
fn panels(c: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..c).step_by(PANEL).map(move |first| (first, PANEL.min(c - first)))
}

/// to += a·b, channel by channel.
#[inline(always)]
fn add_product(to: &mut [f32], a: &[f32], b: &[f32]) {
    match (to.first_chunk_mut::<PANEL>(), a.first_chunk::<PANEL>(), b.first_chunk::<PANEL>()) {
        (Some(to), Some(a), Some(b)) => {
            for lane in 0..PANEL {
                to[lane] += a[lane] * b[lane];
            }
        }
        _ => to.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to += *a * *b),
    }
}

dispatch! {
    /// Of one image: y += x under each tap · its weights; or the way back, dx under each tap += dy · its weights.
    fn spread(window: &Window, back: bool, from: &[f32], weights: &[f32], to: &mut [f32]) {
        let (c, depth) = (window.c, window.depth());
        for (row, tap) in rows_and_taps(window) {
            let Some(run) = run(window, row, tap) else { continue };
            let (output, input) = ((run.output, c), (run.input, run.step));
            let ((from_first, from_step), (to_first, to_step)) = if back { (output, input) } else { (input, output) };
            for (first, n) in panels(c) {
                let weight = &weights[first * depth + run.tap * PANEL..][..n];
                for pixel in 0..run.pixels {
                    let from = &from[from_first + pixel * from_step + first..][..n];
                    add_product(&mut to[to_first + pixel * to_step + first..][..n], from, weight);
                }
            }
        }
    }
}

dispatch! {
    /// Each tap's gradient += dy · x under it, of one image, row by row.
    fn weight_gradient(window: &Window, x: &[f32], dy: &[f32], dweights: &mut [f32]) {
        let (c, depth) = (window.c, window.depth());
        for (row, tap) in rows_and_taps(window) {
            let Some(run) = run(window, row, tap) else { continue };
            for (first, n) in panels(c) {
                // Two chains, since each addition waits for the one before.
                let (mut even, mut odd) = ([0.0; PANEL], [0.0; PANEL]);
                let part = |pixel: usize| {
                    let x = &x[run.input + pixel * run.step + first..][..n];
                    (x, &dy[run.output + pixel * c + first..][..n])
                };
                for pair in 0..run.pixels / 2 {
                    let ((x, dy), (next_x, next_dy)) = (part(2 * pair), part(2 * pair + 1));
                    add_product(&mut even[..n], x, dy);
                    add_product(&mut odd[..n], next_x, next_dy);
                }
                if run.pixels % 2 == 1 {
                    let (x, dy) = part(run.pixels - 1);
                    add_product(&mut even[..n], x, dy);
                }
                let to = &mut dweights[first * depth + run.tap * PANEL..][..n];
                for lane in 0..n {
                    to[lane] += even[lane] + odd[lane];
                }
            }
        }
    }
}

impl Conv<f32> for Depthwise {
    fn method(&self) -> &'static str {
        "f32 depthwise"
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn forward(
        &self,
        x: Images<'_, f32>,
        weight: Weight<'_, f32>,
        bias: Option<&[f32]>,
        mut y: ImagesMut<'_, f32>,
        _scratch: &mut [f32],
    ) {
        for (x, mut y) in x.outer_iter().zip(y.outer_iter_mut()) {
            let (x, y) = (x.to_slice().expect("images lie dense"), y.as_slice_mut().expect("images lie dense"));
            match bias {
                Some(bias) => y.chunks_exact_mut(self.window.c).for_each(|y| y.copy_from_slice(&bias[..self.window.c])),
                None => y.fill(0.0),
            }
            spread(&self.window, false, x, weight.panels, y);
        }
    }

    fn backward(
        &self,
        x: Images<'_, f32>,
        dy: Images<'_, f32>,
        weight: Weight<'_, f32>,
        gradients: ConvGradients<'_, f32>,
        _scratch: &mut [f32],
    ) {
        let c = self.window.c;
        let ConvGradients { mut dx, dpanels, dbias } = gradients;
        if let Some(dbias) = dbias {
            column_sums(self.isa, rows(dy.len() / c, c, dy.to_slice().expect("images lie dense")), true, dbias);
        }
        for (image, (x, dy)) in x.outer_iter().zip(dy.outer_iter()).enumerate() {
            let [x, dy] = [x, dy].map(|image| image.to_slice().expect("images lie dense"));
            weight_gradient(&self.window, x, dy, dpanels);
            if let Some(dx) = &mut dx {
                let mut dx = dx.index_axis_mut(ndarray::Axis(0), image);
                let dx = dx.as_slice_mut().expect("images lie dense");
                dx.fill(0.0);
                spread(&self.window, true, dy, weight.panels, dx);
            }
        }
    }
}
