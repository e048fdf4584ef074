//! y = x·W + b and its gradients.

use super::{matrix, put};
use crate::kernel::product::{LinearMap, Product};
use crate::kernel::view::{Rows, RowsMut};
use crate::kernel::{Needs, Real, Scalar, Weight};
use ndarray::aview1;

/// C = A·B (+ a bias), B as panels.
pub fn product<T: Scalar>(a: Rows<'_, T>, panels: &[T], bias: Option<&[T]>, mut c: RowsMut<'_, T>) {
    let n = c.ncols();
    c.assign(&a.dot(&matrix(a.ncols(), n, panels)));
    if let Some(bias) = bias {
        c += &aview1(&bias[..n]);
    }
}

/// panels = Aᵀ·B, or += where `add`.
pub fn outer<T: Scalar>(a: Rows<'_, T>, b: Rows<'_, T>, add: bool, panels: &mut [T]) {
    put(&a.t().dot(&b), add, panels);
}

struct Plain(LinearMap);

/// The products of a linear map, one multiplication after the other.
pub fn plan<T: Real>(map: LinearMap) -> Box<dyn Product<T>> {
    Box::new(Plain(map))
}

impl<T: Real> Product<T> for Plain {
    fn method(&self) -> &'static str {
        "reference"
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn adds_once(&self) -> bool {
        true
    }

    fn forward(
        &self,
        x: Rows<'_, T>,
        weight: Weight<'_, T>,
        bias: Option<&[T]>,
        y: RowsMut<'_, T>,
        _scratch: &mut [T],
    ) {
        product(x, weight.panels, bias, y);
    }

    fn data_gradient(&self, dy: Rows<'_, T>, weight: Weight<'_, T>, mut dx: RowsMut<'_, T>, _scratch: &mut [T]) {
        dx.assign(&dy.dot(&matrix(self.0.inputs, self.0.outputs, weight.panels).t()));
    }

    fn weight_gradient(&self, x: Rows<'_, T>, dy: Rows<'_, T>, add: bool, dpanels: &mut [T], _scratch: &mut [T]) {
        outer(x, dy, add, dpanels);
    }

    fn bias_gradient(&self, dy: Rows<'_, T>, add: bool, dbias: &mut [T]) {
        for (dbias, column) in dbias.iter_mut().zip(dy.columns()) {
            *dbias = if add { *dbias + column.sum() } else { column.sum() };
        }
    }
}
