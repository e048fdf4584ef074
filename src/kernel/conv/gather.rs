//! Convolutions whose taps do not lie together, for f32: some output pixels' inputs are gathered as rows (im2col), which
//! a product takes. For dilated kernels, and for 1×1 kernels that leave pixels out.

use super::{Conv, ConvGradients, Window};
use crate::kernel::column_sum::column_sums;
use crate::kernel::product::tiled;
use crate::kernel::transpose::transpose_panels;
use crate::kernel::view::{Images, ImagesMut, rows, rows_mut};
use crate::kernel::{Isa, Needs, Weight, panels_len};
use std::ops::Range;

/// Output pixels that are gathered at a time: as many as an outer product takes at once.
const PIXELS: usize = tiled::OUTER_ROWS;

pub(super) struct Gather {
    pub isa: Isa,
    pub window: Window,
}

impl Gather {
    /// Output pixels of `m` images, in pieces.
    fn pieces(&self, m: usize) -> impl Iterator<Item = Range<usize>> {
        let total = m * self.window.out_h() * self.window.out_w();
        (0..total).step_by(PIXELS).map(move |first| first..total.min(first + PIXELS))
    }

    /// Calls `visit(first element of the gathered row, first element of the images)` for each tap of each pixel; the
    /// latter is None in the padding.
    fn taps(&self, pixels: Range<usize>, mut visit: impl FnMut(usize, Option<usize>)) {
        let Window { c, h, w, kernel, .. } = self.window;
        let (out_h, out_w) = (self.window.out_h(), self.window.out_w());
        let mut to = 0;
        for pixel in pixels {
            let (image, row, column) = (pixel / (out_h * out_w), pixel / out_w % out_h, pixel % out_w);
            for tap in (0..kernel.0).flat_map(|row| (0..kernel.1).map(move |column| (row, column))) {
                let under = self.window.under((row, column), tap);
                visit(to, under.map(|(row, column)| ((image * h + row) * w + column) * c));
                to += c;
            }
        }
    }

    fn gather(&self, pixels: Range<usize>, x: &[f32], gathered: &mut [f32]) {
        let c = self.window.c;
        self.taps(pixels, |to, from| match from {
            Some(from) => gathered[to..to + c].copy_from_slice(&x[from..from + c]),
            None => gathered[to..to + c].fill(0.0),
        });
    }
}

impl Conv<f32> for Gather {
    fn method(&self) -> &'static str {
        "f32 gathered"
    }

    fn needs(&self) -> Needs {
        let depth = self.window.depth();
        Needs { packed: panels_len(self.window.o, depth), scratch: PIXELS * depth, work: None }
    }

    fn prepare(&self, panels: &[f32], packed: &mut [f32]) {
        transpose_panels(self.isa, self.window.depth(), self.window.o, panels, packed);
    }

    fn forward(
        &self,
        x: Images<'_, f32>,
        weight: Weight<'_, f32>,
        bias: Option<&[f32]>,
        mut y: ImagesMut<'_, f32>,
        scratch: &mut [f32],
    ) {
        let (depth, o, m) = (self.window.depth(), self.window.o, x.dim().0);
        let (x, y) = (x.to_slice().expect("images lie dense"), y.as_slice_mut().expect("images lie dense"));
        for pixels in self.pieces(m) {
            self.gather(pixels.clone(), x, scratch);
            let y = rows_mut(pixels.len(), o, &mut y[pixels.start * o..]);
            tiled::product(self.isa, rows(pixels.len(), depth, scratch), weight.panels, bias, y);
        }
    }

    fn backward(
        &self,
        x: Images<'_, f32>,
        dy: Images<'_, f32>,
        weight: Weight<'_, f32>,
        gradients: ConvGradients<'_, f32>,
        scratch: &mut [f32],
    ) {
        let (c, depth, o, m) = (self.window.c, self.window.depth(), self.window.o, x.dim().0);
        let [x, dy] = [x, dy].map(|images| images.to_slice().expect("images lie dense"));
        let ConvGradients { mut dx, dpanels, dbias } = gradients;
        let mut dx = dx.as_mut().map(|dx| dx.as_slice_mut().expect("images lie dense"));
        if let Some(dbias) = dbias {
            column_sums(self.isa, rows(dy.len() / o, o, dy), true, dbias);
        }
        if let Some(dx) = &mut dx {
            dx.fill(0.0);
        }
        for pixels in self.pieces(m) {
            let dy = rows(pixels.len(), o, &dy[pixels.start * o..]);
            self.gather(pixels.clone(), x, scratch);
            tiled::outer(self.isa, rows(pixels.len(), depth, scratch), dy, true, dpanels);
            if let Some(dx) = &mut dx {
                tiled::product(self.isa, dy, weight.packed, None, rows_mut(pixels.len(), depth, scratch));
                self.taps(pixels, |from, to| {
                    if let Some(to) = to {
                        let shares = &scratch[from..from + c];
                        dx[to..to + c].iter_mut().zip(shares).for_each(|(dx, share)| *dx += share);
                    }
                });
            }
        }
    }
}
