//! Outer products of few rows: those of a small micro-batch, which are over before packing pays.

use super::tile::{OuterTile, Tiles};
use crate::kernel::view::{Rows, stride};
use crate::kernel::{PANEL, panel_index};

/// Rows of A and B that stay in L1 as they lie.
const FEW: usize = 32;
/// Rows whose distance is a multiple of this many elements share so few sets of L1 that they do not stay.
const ALIAS: usize = 256;

/// Whether `m` rows of A and B, `lda` and `ldb` apart, are better left where they are.
pub(super) fn suits(m: usize, lda: usize, ldb: usize) -> bool {
    m <= FEW && !lda.is_multiple_of(ALIAS) && !ldb.is_multiple_of(ALIAS)
}

/// The outer product of few rows, without packing them. The shapes were checked.
pub(super) fn of_few_rows(tiles: &Tiles, a: Rows<'_, f32>, b: Rows<'_, f32>, add: bool, panels: &mut [f32]) {
    let ((m, k), n, lda) = (a.dim(), b.ncols(), stride(&a));
    let mut run = |col: usize, b: *const f32, b_col: usize| {
        tiles.split(k, |first, height| {
            let tile = OuterTile {
                rows: 1,
                cols: m,
                a: a.as_ptr().wrapping_add(first),
                offsets: None,
                a_row: 0,
                a_col: lda,
                b,
                b_row: 0,
                b_col,
                ahead: std::ptr::null(),
                more: 0,
                add,
                c: panels[panel_index(k, first, col)..].as_mut_ptr(),
                columns: tiles.width().min(n - col),
            };
            // SAFETY: `m` rows of A, of B for a tile's width, and `height` rows of a panel.
            unsafe { tiles.outer(height, &tile) };
        });
    };
    let whole = n / tiles.width() * tiles.width();
    for col in (0..whole).step_by(tiles.width()) {
        run(col, b.as_ptr().wrapping_add(col), stride(&b));
    }
    if whole < n {
        // Columns that fill no tile get zeros behind them.
        let mut rest = [0.0; FEW * PANEL];
        for (b, rest) in b.rows().into_iter().zip(rest.chunks_exact_mut(PANEL)) {
            let b = b.to_slice().expect("a row lies dense");
            rest[..n - whole].copy_from_slice(&b[whole..]);
        }
        run(whole, rest.as_ptr(), PANEL);
    }
}
