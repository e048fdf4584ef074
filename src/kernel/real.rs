//! [`Real`]: which operators a type of numbers has.

use super::conv::{self, Conv, Window};
use super::product::{self, LinearMap, Product};
use super::recurrent::{self, Cell, Recurrence};
use super::{Approximate, Precision, Scalar, activation, gelu, isa, reference, transpose};

/// A type that layers work in, with its operators. For f64 these are the ones in [`reference`], which serve the gradient
/// checks; for f32 the fast ones for the instruction set that [`isa()`] chose at start, none of which allocates in a pass.
pub trait Real: Scalar {
    /// The products of a linear map.
    fn linear(map: LinearMap, _precision: Precision) -> Box<dyn Product<Self>> {
        reference::product_plan(map)
    }
    /// A convolution.
    fn conv2d(window: Window) -> Box<dyn Conv<Self>> {
        reference::conv_plan(window)
    }
    /// One direction of a recurrent layer.
    fn recurrent(recurrence: Recurrence) -> Box<dyn Cell<Self>> {
        reference::cell_plan(recurrence)
    }

    /// x = eˣ for each.
    fn exp_slice(values: &mut [Self]) {
        values.iter_mut().for_each(|value| *value = value.exp());
    }
    /// x = tanh x for each.
    fn tanh_slice(values: &mut [Self]) {
        values.iter_mut().for_each(|value| *value = value.tanh());
    }
    /// x = 1 / (1 + e⁻ˣ) for each.
    fn sigmoid_slice(values: &mut [Self]) {
        values.iter_mut().for_each(|value| *value = value.sigmoid());
    }
    /// y = x·Φ(x) for each, Φ the normal distribution; `y` is as long as `x`.
    fn gelu(form: Approximate, x: &[Self], y: &mut [Self]) {
        gelu::reference(form, x, y)
    }
    /// dx = dy·(Φ(x) + x·Φ'(x)) for each; all are of one length.
    fn gelu_gradient(form: Approximate, x: &[Self], dy: &[Self], dx: &mut [Self]) {
        gelu::reference_gradient(form, x, dy, dx)
    }
    /// Each of the dense matrices (rows, columns) in `from` transposed to (columns, rows) in `to`.
    fn transpose(rows: usize, columns: usize, from: &[Self], to: &mut [Self]) {
        reference::transpose(rows, columns, from, to)
    }
}

impl Real for f64 {}

impl Real for f32 {
    fn linear(map: LinearMap, precision: Precision) -> Box<dyn Product<Self>> {
        product::plan(isa(), map, precision)
    }
    fn conv2d(window: Window) -> Box<dyn Conv<Self>> {
        conv::plan(isa(), window)
    }
    fn recurrent(recurrence: Recurrence) -> Box<dyn Cell<Self>> {
        recurrent::plan(isa(), recurrence)
    }
    fn exp_slice(values: &mut [Self]) {
        activation::exp_slice(isa(), values)
    }
    fn tanh_slice(values: &mut [Self]) {
        activation::tanh_slice(isa(), values)
    }
    fn sigmoid_slice(values: &mut [Self]) {
        activation::sigmoid_slice(isa(), values)
    }
    fn gelu(form: Approximate, x: &[Self], y: &mut [Self]) {
        gelu::forward(isa(), form, x, y)
    }
    fn gelu_gradient(form: Approximate, x: &[Self], dy: &[Self], dx: &mut [Self]) {
        gelu::gradient(isa(), form, x, dy, dx)
    }
    fn transpose(rows: usize, columns: usize, from: &[Self], to: &mut [Self]) {
        transpose::transpose(isa(), rows, columns, from, to)
    }
}
