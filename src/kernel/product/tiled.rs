//! Products by register tiles, for f32.

use super::tile::{LINE, OuterTile, ProductTile, TileInit, Tiles};
use super::{column, outer};
use crate::arena::Buffer;
use crate::kernel::simd::{Simd, simd_entry};
use crate::kernel::view::{Rows, RowsMut, stride};
use crate::kernel::{Isa, PANEL, panel_index, panels_len};
use std::cell::RefCell;
use std::mem::MaybeUninit;

/// Depth of a block: a tile's rows of A stay in L1, and [`WIDTH`] columns of B in L2.
const DEPTH: usize = 256;
/// Columns of a block.
const WIDTH: usize = 512;
/// Rows of A and B that an outer product takes at a time: two packed tiles fit L1.
pub(crate) const OUTER_ROWS: usize = 192;
/// Rows of the output that an outer product takes at a time.
const OUTER_DEPTH: usize = 224;
/// Elements of a block of A beside which a panel of B stays in L1.
const SMALL: usize = 4096;
/// Rows whose distance is a multiple of this many elements (4 KiB) share one set of L1.
const ALIAS: usize = 1024;
/// Elements that break such a distance.
const SKEW: usize = 16;
/// Rows of the largest tile of any instruction set.
const MAX_ROWS: usize = 14;

thread_local! {
    /// Packed blocks of an outer product: allocated at the thread's first one, then reused.
    static PACKED: RefCell<Buffer<f32>> =
        RefCell::new(Buffer::zeros(OUTER_ROWS * (OUTER_DEPTH + WIDTH) + 2 * PANEL));
}

simd_entry! {
    /// Copies `rows` rows of `width` elements, `stride` apart, to rows `to_stride` apart, of `padded` ≥ width elements,
    /// zeros behind. Whole vectors are written in order, so a row may spill over the start of the next and a vector's
    /// width less one past the last.
    ///
    /// # Safety
    /// The rows can be read, and the rows with that spill written.
    pub(in crate::kernel) unsafe fn copy_rows(
        rows: usize, width: usize, padded: usize, from: *const f32, stride: usize, to: *mut f32, to_stride: usize,
    ) = copy_rows_body
}

/// See [`copy_rows`].
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn copy_rows_body<S: Simd>(
    rows: usize,
    width: usize,
    padded: usize,
    from: *const f32,
    stride: usize,
    to: *mut f32,
    to_stride: usize,
) {
    for row in 0..rows {
        for at in (0..padded).step_by(S::LANES) {
            // SAFETY: the caller's contract; past `width` nothing is read.
            unsafe {
                let from = from.wrapping_add(row * stride + at);
                let to = to.add(row * to_stride + at);
                if at + S::LANES <= width {
                    S::load(from).store(to);
                } else {
                    S::load_first(from, width.saturating_sub(at)).store(to);
                }
            }
        }
    }
}

/// C = A·B (+ a bias of N elements): A (M, K), `panels` K×N, C (M, N).
///
/// # Panics
/// Where shapes do not fit each other, or rows do not lie dense.
pub(crate) fn product(isa: Isa, a: Rows<'_, f32>, panels: &[f32], bias: Option<&[f32]>, c: RowsMut<'_, f32>) {
    let (k, n) = (a.ncols(), c.ncols());
    if n == 1 && k > 0 {
        return column::product(isa, a, panels, bias, c);
    }
    if k == 1 {
        return column::of_depth_one(isa, a, panels, bias, c);
    }
    product_by(Tiles::of(isa), isa, a, panels, bias, c)
}

/// [`product`] by `tiles`, whose elements of A and of the panels may be pairs.
pub(super) fn product_by(
    tiles: &Tiles,
    isa: Isa,
    a: Rows<'_, f32>,
    panels: &[f32],
    bias: Option<&[f32]>,
    mut c: RowsMut<'_, f32>,
) {
    let ((m, k), n) = (a.dim(), c.ncols());
    let (lda, ldc, a, c_rows) = (stride(&a), stride(&c), a.as_ptr(), c.nrows());
    let c = c.as_mut_ptr();
    assert!(m == c_rows, "A and C have other rows");
    assert!(panels.len() >= panels_len(k, n), "the panels are too short");
    assert!(bias.is_none_or(|bias| bias.len() >= n), "the bias is too short");
    if m == 0 || n == 0 {
        return;
    }
    let mut skewed = MaybeUninit::<[f32; MAX_ROWS * (DEPTH + SKEW) + PANEL]>::uninit();
    let skewed = skewed.as_mut_ptr().cast::<f32>();
    let skew = lda.is_multiple_of(ALIAS) && n > PANEL && tiles.rows() > 8;
    let blocks = k.div_ceil(DEPTH).max(1);
    for n0 in (0..n).step_by(WIDTH) {
        let n1 = n.min(n0 + WIDTH);
        for block in 0..blocks {
            let (k0, k1) = (block * k / blocks, (block + 1) * k / blocks);
            let depth = k1 - k0;
            // The next block of B: each of two rows of tiles asks for half of a panel's two lines a row.
            let (next_n, next_k) = if block + 1 < blocks { (0, k1) } else { (WIDTH, 0) };
            let ahead = |col: usize, row_of_tiles: usize| {
                let (col, half) = (col + next_n, row_of_tiles % 2 * depth * PANEL / 2);
                let inside = if col < n { panel_index(k, next_k, col) + half } else { 0 };
                panels.as_ptr().wrapping_add(inside)
            };
            let run = |first: usize, rows: usize, tile_a: *const f32, a_row: usize, col: usize| {
                let init = match bias {
                    _ if block > 0 => TileInit::Add,
                    None => TileInit::Zero,
                    Some(bias) => TileInit::Bias(bias[col..].as_ptr()),
                };
                let tile = ProductTile {
                    segments: 1,
                    length: depth,
                    a: tile_a,
                    a_row,
                    a_segment: 0,
                    b: panels.as_ptr().wrapping_add(col / PANEL * k * PANEL + k0 * PANEL + col % PANEL),
                    init,
                    c: c.wrapping_add(first * ldc + col),
                    c_row: ldc,
                    columns: tiles.width().min(n - col),
                    ahead: ahead(col, first / rows),
                    ahead_segment: 0,
                };
                // SAFETY: rows `first..first + rows` of A (or their copy) and C and columns `col..` of the panels and
                // the bias are in bounds by the assertions above.
                unsafe { tiles.product(rows, &tile) };
            };
            if m * depth <= SMALL && !skew {
                for col in (n0..n1).step_by(tiles.width()) {
                    tiles.split(m, |first, rows| {
                        run(first, rows, a.wrapping_add(first * lda + k0), lda, col);
                    });
                }
                continue;
            }
            tiles.split(m, |first, rows| {
                let (mut tile_a, mut a_row) = (a.wrapping_add(first * lda + k0), lda);
                if skew && rows > 1 {
                    // SAFETY: `rows` ≤ MAX_ROWS rows of `depth` ≤ DEPTH elements of A, into a scratch of that size.
                    unsafe { copy_rows(isa, rows, depth, depth, tile_a, lda, skewed, DEPTH + SKEW) };
                    (tile_a, a_row) = (skewed, DEPTH + SKEW);
                }
                for col in (n0..n1).step_by(tiles.width()) {
                    run(first, rows, tile_a, a_row, col);
                }
            });
        }
    }
}

/// panels(K×N) = Aᵀ·B, or += where `add`: A (M, K), B (M, N). Columns past N stay as they are.
///
/// # Panics
/// As [`product`].
pub(crate) fn outer(isa: Isa, a: Rows<'_, f32>, b: Rows<'_, f32>, add: bool, panels: &mut [f32]) {
    if b.ncols() == 1 {
        return column::outer(isa, a, b, add, panels);
    }
    outer_by(Tiles::of(isa), isa, a, b, add, panels)
}

/// [`outer`] by `tiles`, whose elements of A and B may be pairs.
pub(super) fn outer_by(tiles: &Tiles, isa: Isa, a: Rows<'_, f32>, b: Rows<'_, f32>, add: bool, panels: &mut [f32]) {
    let ((m, k), n) = (a.dim(), b.ncols());
    let (lda, ldb) = (stride(&a), stride(&b));
    assert!(m == b.nrows(), "A and B have other rows");
    assert!(panels.len() >= panels_len(k, n), "the panels are too short");
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    if outer::suits(m, lda, ldb) {
        return outer::of_few_rows(tiles, a, b, add, panels);
    }
    let (a, b) = (a.as_ptr(), b.as_ptr());
    PACKED.with_borrow_mut(|packed| {
        let (packed_b, packed_a) = packed.split_at_mut(OUTER_ROWS * WIDTH);
        let blocks = m.div_ceil(OUTER_ROWS);
        for block in 0..blocks {
            let (m0, m1) = (block * m / blocks, (block + 1) * m / blocks);
            let rows = m1 - m0;
            for n0 in (0..n).step_by(WIDTH) {
                let n1 = n.min(n0 + WIDTH);
                for col in (n0..n1).step_by(PANEL) {
                    let to = packed_b[(col - n0) * rows..][..rows * PANEL].as_mut_ptr();
                    let width = PANEL.min(n - col);
                    // SAFETY: `rows` rows of B from column `col`, into the slice just taken, which they fill exactly.
                    unsafe { copy_rows(isa, rows, width, PANEL, b.wrapping_add(m0 * ldb + col), ldb, to, PANEL) };
                }
                let k_blocks = k.div_ceil(OUTER_DEPTH);
                for k_block in 0..k_blocks {
                    let (k0, k1) = (k_block * k / k_blocks, (k_block + 1) * k / k_blocks);
                    // A packed as [tile][row][rows of the tile].
                    tiles.split(k1 - k0, |first, height| {
                        let to = packed_a[first * rows..][..height * rows + PANEL].as_mut_ptr();
                        let from = a.wrapping_add(m0 * lda + k0 + first);
                        // SAFETY: `rows` rows of A, into the slice just taken, which has room for the spill.
                        unsafe { copy_rows(isa, rows, height, height, from, lda, to, height) };
                    });
                    for col in (n0..n1).step_by(tiles.width()) {
                        let panel_b = packed_b[(col - n0) / PANEL * PANEL * rows + col % PANEL..].as_ptr();
                        tiles.split(k1 - k0, |first, height| {
                            let at = col / PANEL * k * PANEL + (k0 + first) * PANEL + col % PANEL;
                            let tile = OuterTile {
                                rows: 1,
                                cols: rows,
                                a: packed_a[first * rows..].as_ptr(),
                                offsets: None,
                                a_row: 0,
                                a_col: height,
                                b: panel_b,
                                b_row: 0,
                                b_col: PANEL,
                                // The next tile's C.
                                ahead: panels.as_ptr().wrapping_add(at + height * PANEL),
                                more: (height * PANEL / LINE).saturating_sub(rows),
                                c: panels[at..].as_mut_ptr(),
                                columns: tiles.width().min(n - col),
                                add: add || block > 0,
                            };
                            // SAFETY: the packed blocks hold `rows` rows of the tile's height and width, and the panels
                            // K rows for each panel, by the assertions above.
                            unsafe { tiles.outer(height, &tile) };
                        });
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{close, filled, isas};
    use crate::kernel::view::{rows, rows_apart, rows_apart_mut, rows_mut};
    use crate::kernel::{panel, reference};

    #[test]
    fn products_agree_with_the_reference() {
        let sizes = [1, 2, 3, 5, 8, 13, 14, 15, 16, 17, 29, 31, 32, 33, 48, 49, 63, 64, 65, 70];
        let mut case = 0;
        for &m in &sizes {
            for &n in &sizes {
                for k in [1, 3, 4, 17, 33, 70, 300] {
                    case += 1;
                    if (m + n + k) % 3 != 0 && m * n * k > 2000 {
                        continue;
                    }
                    let (lda, ldc) = (k + case % 3, n + case % 4);
                    let a = filled(case as u64, m * lda);
                    let mut panels = vec![f32::NAN; panels_len(k, n)];
                    panel::pack(rows(k, n, &filled(7 + case as u64, k * n)), &mut panels);
                    let a = rows_apart(m, k, lda, &a);
                    let (bias, before) = (filled(8, n), filled(9, m * ldc));
                    for bias in [None, Some(&bias[..])] {
                        let mut expected = before.clone();
                        reference::product(a, &panels, bias, rows_apart_mut(m, n, ldc, &mut expected));
                        for isa in isas() {
                            let mut c = before.clone();
                            product(isa, a, &panels, bias, rows_apart_mut(m, n, ldc, &mut c));
                            close(&c, &expected, 1e-6 * (k as f32).sqrt().max(4.0), &(isa, m, k, n, bias.is_some()));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn products_with_aliasing_rows_and_several_blocks_agree() {
        for (m, k, n) in [(29, 1024, 70), (17, 2048, 530), (3, 1500, 33), (64, 600, 10)] {
            let a = filled(1, m * k);
            let panels = filled(2, panels_len(k, n));
            let mut expected = vec![0.0; m * n];
            reference::product(rows(m, k, &a), &panels, None, rows_mut(m, n, &mut expected));
            for isa in isas() {
                let mut c = vec![f32::NAN; m * n];
                product(isa, rows(m, k, &a), &panels, None, rows_mut(m, n, &mut c));
                close(&c, &expected, 3e-5, &(isa, m, k, n));
            }
        }
    }

    #[test]
    fn outer_products_agree_and_leave_the_padding_alone() {
        for (case, &(m, k, n)) in [
            (1, 1, 1),
            (2, 5, 3),
            (3, 14, 16),
            (7, 15, 17),
            (13, 29, 33),
            (16, 64, 32),
            (70, 70, 70),
            (64, 31, 48),
            (193, 20, 10),
            (400, 3, 65),
            (5, 230, 40),
            (9, 450, 7),
            (20, 10, 1100),
            (33, 1, 256),
        ]
        .iter()
        .enumerate()
        {
            let (lda, ldb) = (k + case % 3, n + case % 2);
            let (a, b) = (filled(3, m * lda), filled(4, m * ldb));
            let (a, b) = (rows_apart(m, k, lda, &a), rows_apart(m, n, ldb, &b));
            let before = filled(5, panels_len(k, n));
            let column = |at: usize| at / (k * PANEL) * PANEL + at % PANEL;
            for (isa, add) in isas().flat_map(|isa| [(isa, true), (isa, false)]) {
                let mut expected = before.clone();
                reference::outer(a, b, add, &mut expected);
                let mut panels = before.clone();
                outer(isa, a, b, add, &mut panels);
                close(&panels, &expected, 1e-6 * (m as f32).sqrt().max(4.0), &(isa, m, k, n));
                for (at, (new, old)) in panels.iter().zip(&before).enumerate() {
                    let same = new.to_bits() == old.to_bits();
                    assert!(column(at) < n || same, "padding changed: {isa:?} {m} {k} {n}");
                }
            }
        }
    }

    #[test]
    fn empty_products_do_nothing_or_initialise() {
        let mut c = [f32::NAN; 2];
        product(crate::kernel::isa(), rows(1, 0, &[]), &[], Some(&[1.0, 2.0]), rows_mut(1, 2, &mut c));
        assert_eq!(c, [1.0, 2.0]);
        outer(crate::kernel::isa(), rows(0, 3, &[]), rows(0, 2, &[]), true, &mut [0.0; 96]);
    }
}
