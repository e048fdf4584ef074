//! A convolution as a sum over the taps of its kernel, each a product of a shifted image.

use super::{matrix, put};
use crate::kernel::conv::{Conv, ConvGradients, Window};
use crate::kernel::view::{Images, ImagesMut};
use crate::kernel::{Needs, Scalar, Weight};
use ndarray::{Array2, Array4, Axis, SliceInfo, SliceInfoElem, aview1, s};
use std::ops::Range;

struct Plain(Window);

/// A convolution, tap by tap.
pub fn plan<T: Scalar>(window: Window) -> Box<dyn Conv<T>> {
    Box::new(Plain(window))
}

/// Which pixels of the padded images a tap meets: one for each output pixel.
type Pixels = SliceInfo<[SliceInfoElem; 4], ndarray::Ix4, ndarray::Ix4>;

impl Plain {
    /// Calls `visit(its pixels, its rows of the weights, its columns)` for each tap of each group.
    fn taps(&self, mut visit: impl FnMut(Pixels, Range<usize>, Range<usize>)) {
        let Window { kernel, stride, dilation, .. } = self.0;
        let Window { c, o, .. } = self.0.of_group();
        let span = |first: usize, outputs: usize, stride: usize| first..first + (outputs - 1) * stride + 1;
        for (row, column) in (0..kernel.0).flat_map(|row| (0..kernel.1).map(move |column| (row, column))) {
            let down = span(row * dilation.0, self.0.out_h(), stride.0);
            let across = span(column * dilation.1, self.0.out_w(), stride.1);
            let first = (row * kernel.1 + column) * c;
            for group in 0..self.0.groups {
                let pixels = s![.., down.clone(); stride.0, across.clone(); stride.1, group * c..(group + 1) * c];
                visit(pixels, first..first + c, group * o..(group + 1) * o);
            }
        }
    }

    /// Where the images lie in their padding.
    fn inside(&self) -> Pixels {
        let Window { h, w, padding, .. } = self.0;
        s![.., padding.0..padding.0 + h, padding.1..padding.1 + w, ..]
    }

    fn padded<T: Scalar>(&self, m: usize) -> Array4<T> {
        let (h, w) = self.0.padded();
        Array4::zeros((m, h, w, self.0.c))
    }
}

/// Pixels as the rows of a matrix.
fn flat<T: Scalar>(images: Images<'_, T>) -> Array2<T> {
    let (m, h, w, c) = images.dim();
    Array2::from_shape_vec((m * h * w, c), images.iter().copied().collect()).expect("as many as there are")
}

impl<T: Scalar> Conv<T> for Plain {
    fn method(&self) -> &'static str {
        "reference"
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// y = Σ over taps of x shifted · W of the tap, + b.
    fn forward(
        &self,
        x: Images<'_, T>,
        weight: Weight<'_, T>,
        bias: Option<&[T]>,
        mut y: ImagesMut<'_, T>,
        _scratch: &mut [T],
    ) {
        let mut padded = self.padded(x.dim().0);
        padded.slice_mut(self.inside()).assign(&x);
        let w = matrix(self.0.depth(), self.0.o, weight.panels);
        let mut sums = Array2::zeros((y.len() / self.0.o, self.0.o));
        self.taps(|pixels, rows, columns| {
            let mut sums = sums.slice_mut(s![.., columns.clone()]);
            sums += &flat(padded.slice(pixels)).dot(&w.slice(s![rows, columns]));
        });
        if let Some(bias) = bias {
            sums += &aview1(&bias[..self.0.o]);
        }
        let sums = sums.into_shape_with_order(y.dim()).expect("a row for each pixel");
        y.assign(&sums);
    }

    /// dW of a tap = x shiftedᵀ · dy, dx shifted += dy · Wᵀ of the tap, db = Σ dy.
    fn backward(
        &self,
        x: Images<'_, T>,
        dy: Images<'_, T>,
        weight: Weight<'_, T>,
        gradients: ConvGradients<'_, T>,
        _scratch: &mut [T],
    ) {
        let (mut padded, mut dpadded) = (self.padded(x.dim().0), self.padded(x.dim().0));
        padded.slice_mut(self.inside()).assign(&x);
        let (w, dy) = (matrix(self.0.depth(), self.0.o, weight.panels), flat(dy));
        let mut dw = Array2::zeros(w.dim());
        self.taps(|pixels, rows, columns| {
            let dy = dy.slice(s![.., columns.clone()]);
            dw.slice_mut(s![rows.clone(), columns.clone()]).assign(&flat(padded.slice(pixels)).t().dot(&dy));
            let mut dx = dpadded.slice_mut(pixels);
            let shares = dy.dot(&w.slice(s![rows, columns]).t());
            dx += &shares.into_shape_with_order(dx.dim()).expect("a row for each pixel");
        });
        put(&dw, true, gradients.dpanels);
        if let Some(dbias) = gradients.dbias {
            let sums = dy.sum_axis(Axis(0));
            dbias.iter_mut().zip(&sums).for_each(|(dbias, sum)| *dbias += *sum);
        }
        if let Some(mut dx) = gradients.dx {
            dx.assign(&dpadded.slice(self.inside()));
        }
    }
}
