//! Depthwise convolutions for f32, of which each channel has a kernel of its own: sums over taps, channels side by side in
//! vectors, as they lie both in an image and in a panel.

use super::{Conv, ConvGradients, Window};
use crate::kernel::column_sum::column_sums;
use crate::kernel::isa::dispatch;
use crate::kernel::view::{Images, ImagesMut, rows};
use crate::kernel::{Needs, PANEL, Weight};

pub(super) struct Depthwise {
    pub window: Window,
}

/// Calls `visit(first element of the output pixel, first element of the input pixel, tap)` for each tap of each pixel that
/// lies inside its image.
#[inline(always)]
fn taps(window: &Window, m: usize, mut visit: impl FnMut(usize, usize, usize)) {
    let Window { c, h, w, kernel, .. } = *window;
    let (out_h, out_w) = (window.out_h(), window.out_w());
    for image in 0..m {
        for row in 0..out_h {
            for column in 0..out_w {
                let output = ((image * out_h + row) * out_w + column) * c;
                for tap in 0..kernel.0 * kernel.1 {
                    let under = window.under((row, column), (tap / kernel.1, tap % kernel.1));
                    let Some((row, column)) = under else { continue };
                    visit(output, ((image * h + row) * w + column) * c, tap);
                }
            }
        }
    }
}

/// Where a tap's weights of channels from `first` on lie.
#[inline(always)]
fn at(window: &Window, tap: usize, first: usize) -> usize {
    first * window.depth() + tap * PANEL
}

dispatch! {
    /// y += x under each tap · its weights.
    fn forward(window: &Window, m: usize, x: &[f32], panels: &[f32], y: &mut [f32]) {
        let c = window.c;
        taps(window, m, |output, input, tap| {
            for first in (0..c).step_by(PANEL) {
                let n = PANEL.min(c - first);
                let (y, x) = (&mut y[output + first..][..n], &x[input + first..][..n]);
                for ((y, x), weight) in y.iter_mut().zip(x).zip(&panels[at(window, tap, first)..][..n]) {
                    *y += *x * *weight;
                }
            }
        });
    }
}

dispatch! {
    /// Each tap's gradient += dy · x under it.
    fn weight_gradient(window: &Window, m: usize, x: &[f32], dy: &[f32], dpanels: &mut [f32]) {
        let c = window.c;
        taps(window, m, |output, input, tap| {
            for first in (0..c).step_by(PANEL) {
                let n = PANEL.min(c - first);
                let (dy, x) = (&dy[output + first..][..n], &x[input + first..][..n]);
                for ((dweight, x), dy) in dpanels[at(window, tap, first)..][..n].iter_mut().zip(x).zip(dy) {
                    *dweight += *x * *dy;
                }
            }
        });
    }
}

dispatch! {
    /// dx under each tap += dy · its weights.
    fn data_gradient(window: &Window, m: usize, dy: &[f32], panels: &[f32], dx: &mut [f32]) {
        let c = window.c;
        taps(window, m, |output, input, tap| {
            for first in (0..c).step_by(PANEL) {
                let n = PANEL.min(c - first);
                let (dy, dx) = (&dy[output + first..][..n], &mut dx[input + first..][..n]);
                for ((dx, dy), weight) in dx.iter_mut().zip(dy).zip(&panels[at(window, tap, first)..][..n]) {
                    *dx += *dy * *weight;
                }
            }
        });
    }
}

impl Conv<f32> for Depthwise {
    fn method(&self) -> &'static str {
        "f32 depthwise"
    }

    fn needs(&self) -> Needs {
        // A block's weight gradient, so that long sums stay exact.
        Needs { scratch: self.window.c.next_multiple_of(PANEL) * self.window.depth(), ..Needs::default() }
    }

    fn prepare(&self, _panels: &[f32], _packed: &mut [f32]) {}

    fn forward(
        &self,
        x: Images<'_, f32>,
        weight: Weight<'_, f32>,
        bias: Option<&[f32]>,
        mut y: ImagesMut<'_, f32>,
        _scratch: &mut [f32],
    ) {
        let (c, m) = (self.window.c, x.dim().0);
        let (x, y) = (x.to_slice().expect("images lie dense"), y.as_slice_mut().expect("images lie dense"));
        match bias {
            Some(bias) => y.chunks_exact_mut(c).for_each(|y| y.copy_from_slice(&bias[..c])),
            None => y.fill(0.0),
        }
        forward(&self.window, m, x, weight.panels, y);
    }

    fn backward(
        &self,
        x: Images<'_, f32>,
        dy: Images<'_, f32>,
        weight: Weight<'_, f32>,
        gradients: ConvGradients<'_, f32>,
        scratch: &mut [f32],
    ) {
        let (c, m) = (self.window.c, x.dim().0);
        let [x, dy] = [x, dy].map(|images| images.to_slice().expect("images lie dense"));
        if let Some(dbias) = gradients.dbias {
            column_sums(rows(dy.len() / c, c, dy), true, dbias);
        }
        let sums = &mut scratch[..self.needs().scratch];
        let (input, output) = (x.len() / m.max(1), dy.len() / m.max(1));
        for (x, dy) in x.chunks_exact(input.max(1)).zip(dy.chunks_exact(output.max(1))) {
            sums.fill(0.0);
            weight_gradient(&self.window, 1, x, dy, sums);
            gradients.dpanels.iter_mut().zip(&*sums).for_each(|(dpanels, sum)| *dpanels += sum);
        }
        if let Some(mut dx) = gradients.dx {
            let dx = dx.as_slice_mut().expect("images lie dense");
            dx.fill(0.0);
            data_gradient(&self.window, m, dy, weight.panels, dx);
        }
    }
}
