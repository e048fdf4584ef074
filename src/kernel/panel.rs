//! Weights as panels: see [`crate::arena::Storage`].

#[cfg(test)]
use super::view::Rows;
use crate::arena::PANEL;

/// Elements of K×N panels.
pub const fn panels_len(k: usize, n: usize) -> usize {
    n.div_ceil(PANEL) * k * PANEL
}

/// Where element (k, n) of K×N panels lies: `[ceil(N / 32)][K][32]`.
#[inline(always)]
pub const fn panel_index(depth: usize, k: usize, n: usize) -> usize {
    n / PANEL * depth * PANEL + k * PANEL + n % PANEL
}

/// A matrix (K, N), of whatever strides, as panels; padding becomes the default, zero.
#[cfg(test)]
pub(super) fn pack<T: Copy + Default>(matrix: Rows<'_, T>, panels: &mut [T]) {
    let (k, n) = matrix.dim();
    panels[..panels_len(k, n)].fill(T::default());
    for ((depth, column), value) in matrix.indexed_iter() {
        panels[panel_index(k, depth, column)] = *value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::view::rows;

    #[test]
    fn each_element_lies_at_its_index_and_padding_is_zero() {
        for (k, n) in [(1, 1), (5, 40), (33, 31), (64, 64), (70, 3)] {
            let matrix: Vec<f32> = (1..=k * n).map(|v| v as f32).collect();
            let (mut panels, mut turned) = (vec![f32::NAN; panels_len(k, n)], vec![f32::NAN; panels_len(n, k)]);
            pack(rows(k, n, &matrix), &mut panels);
            pack(rows(k, n, &matrix).reversed_axes(), &mut turned);
            for (row, column) in (0..k).flat_map(|row| (0..n).map(move |column| (row, column))) {
                assert_eq!(panels[panel_index(k, row, column)], matrix[row * n + column]);
                assert_eq!(turned[panel_index(n, column, row)], matrix[row * n + column]);
            }
            assert_eq!(panels.iter().filter(|&&v| v == 0.0).count(), panels.len() - k * n);
        }
    }
}
