//! Products by the transpose of panels, read as they lie.
//!
//! C = A·Pᵀ is made as Cᵀ = P·Aᵀ: P's rows are broadcast, 32 rows of A at a time are the columns. So only A and C, which are
//! as small as a micro-batch, are transposed, and not the weights.

use super::tile::{ProductTile, TileInit, Tiles};
use crate::kernel::transpose::transpose_strided;
use crate::kernel::view::{Rows, RowsMut, stride};
use crate::kernel::{Isa, PANEL, panels_len};

/// Panels of depth in a block: the rows of A in it stay in L1.
const SEGMENTS: usize = 8;
/// Rows of Cᵀ that are made before they are transposed: they stay in L1.
const ROWS: usize = 112;

/// Elements of scratch for a [`product_transposed`] of N columns.
pub(crate) fn scratch_len(n: usize) -> usize {
    (n.next_multiple_of(PANEL) + ROWS) * PANEL
}

/// C = A·Pᵀ: A (M, N), `panels` is P (K×N), C (M, K); [`scratch_len`] of N elements of scratch.
pub(crate) fn product_transposed(
    isa: Isa,
    a: Rows<'_, f32>,
    panels: &[f32],
    mut c: RowsMut<'_, f32>,
    scratch: &mut [f32],
) {
    let ((m, n), k) = (a.dim(), c.ncols());
    let (lda, ldc) = (stride(&a), stride(&c));
    assert!(m == c.nrows(), "A and C have other rows");
    assert!(panels.len() >= panels_len(k, n) && scratch.len() >= scratch_len(n), "the panels are too short");
    let tiles = Tiles::of(isa);
    let (columns, rows) = scratch.split_at_mut(n.next_multiple_of(PANEL) * PANEL);
    for first in (0..m).step_by(PANEL) {
        let width = PANEL.min(m - first);
        // SAFETY: `width` rows of N elements from A; the columns have room for N rounded up to a panel.
        unsafe {
            let from = a.as_ptr().wrapping_add(first * lda);
            transpose_strided(isa, width, n, from, lda, columns.as_mut_ptr(), PANEL)
        };
        // Rows of zeros where the last panel's columns are padding.
        columns[n * PANEL..].fill(0.0);
        for k0 in (0..k).step_by(ROWS) {
            let height = ROWS.min(k - k0);
            for panel in (0..n.div_ceil(PANEL)).step_by(SEGMENTS) {
                let segments = SEGMENTS.min(n.div_ceil(PANEL) - panel);
                tiles.split(height, |row, count| {
                    for col in (0..width).step_by(tiles.width()) {
                        let tile = ProductTile {
                            segments,
                            length: PANEL,
                            a: panels[panel * k * PANEL + (k0 + row) * PANEL..].as_ptr(),
                            a_row: PANEL,
                            a_segment: k * PANEL,
                            b: columns[panel * PANEL * PANEL + col..].as_ptr(),
                            init: if panel == 0 { TileInit::Zero } else { TileInit::Add },
                            c: rows[row * PANEL + col..].as_mut_ptr(),
                            c_row: PANEL,
                            columns: tiles.width().min(width - col),
                            // The rows of the next tile.
                            ahead: panels.as_ptr().wrapping_add((panel * k + k0 + row + count) * PANEL),
                            ahead_segment: k * PANEL,
                        };
                        // SAFETY: the panels have K rows each, the columns N rounded up, `rows` at least `height`.
                        unsafe { tiles.product(count, &tile) };
                    }
                });
            }
            // SAFETY: `height` rows of `width` elements, into `width` rows of C from column `k0` on.
            unsafe {
                let to = c.as_mut_ptr().wrapping_add(first * ldc + k0);
                transpose_strided(isa, height, width, rows.as_ptr(), PANEL, to, ldc)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{close, filled, isas};
    use crate::kernel::view::{rows, rows_mut};
    use crate::kernel::{panel, reference};

    #[test]
    fn products_agree_with_the_reference() {
        let mut case = 0;
        for m in [1, 2, 15, 16, 17, 31, 32, 33, 70] {
            for n in [1, 10, 31, 32, 33, 64, 100, 300] {
                for k in [1, 3, 14, 16, 33, 111, 112, 113, 130, 240] {
                    case += 1;
                    let (a, dense) = (filled(case, m * n), filled(case + 7, k * n));
                    let (mut panels, mut transposed) = (vec![f32::NAN; panels_len(k, n)], vec![0.0; panels_len(n, k)]);
                    panel::pack(rows(k, n, &dense), &mut panels);
                    panel::pack(rows(k, n, &dense).reversed_axes(), &mut transposed);
                    let mut expected = vec![f32::NAN; m * k];
                    reference::product(rows(m, n, &a), &transposed, None, rows_mut(m, k, &mut expected));
                    for isa in isas() {
                        let mut c = vec![f32::NAN; m * k];
                        let mut scratch = vec![f32::NAN; scratch_len(n)];
                        product_transposed(isa, rows(m, n, &a), &panels, rows_mut(m, k, &mut c), &mut scratch);
                        close(&c, &expected, 1e-6 * (n as f32).sqrt().max(4.0), &(isa, m, n, k));
                    }
                }
            }
        }
    }
}
