//! The operators in plain [`ndarray`]: what a reader reads first, what gradient checks run in f64, and what every fast
//! method is tested against. Never optimised.

mod conv;
mod product;
mod recurrent;

pub use conv::plan as conv_plan;
pub use product::{outer, plan as product_plan, product};
pub use recurrent::plan as cell_plan;

use super::{Scalar, panel_index, panels_len};
use ndarray::Array2;

/// The matrix (K, N) that lies in panels.
pub fn matrix<T: Scalar>(k: usize, n: usize, panels: &[T]) -> Array2<T> {
    Array2::from_shape_fn((k, n), |(row, column)| panels[panel_index(k, row, column)])
}

/// Writes a matrix (K, N) to its panels, or adds to them; padding stays as it is.
pub(super) fn put<T: Scalar>(matrix: &Array2<T>, add: bool, panels: &mut [T]) {
    for ((row, column), value) in matrix.indexed_iter() {
        let to = &mut panels[panel_index(matrix.nrows(), row, column)];
        *to = if add { *to + *value } else { *value };
    }
}

/// From K×N `panels` to N×K panels of the transpose; padding becomes zero.
pub fn transpose_panels<T: Scalar>(k: usize, n: usize, panels: &[T], transposed: &mut [T]) {
    transposed[..panels_len(n, k)].fill(T::ZERO);
    put(&matrix(k, n, panels).reversed_axes(), false, transposed);
}

/// Each of the dense matrices (rows, columns) in `from` transposed to (columns, rows) in `to`.
pub fn transpose<T: Scalar>(rows: usize, columns: usize, from: &[T], to: &mut [T]) {
    for (from, to) in from.chunks_exact(rows * columns).zip(to.chunks_exact_mut(rows * columns)) {
        for (index, value) in from.iter().enumerate() {
            to[index % columns * rows + index / columns] = *value;
        }
    }
}
