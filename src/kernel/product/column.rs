//! Products of one column, and of depth one: those of a layer with a single output, for which a tile is too wide.

use crate::kernel::simd::{Simd, simd_entry};
use crate::kernel::view::{Rows, RowsMut, stride};
use crate::kernel::{Isa, PANEL, panels_len};

/// Depth that is taken at a time; the column, which lies scattered in a panel, is gathered for it.
const DEPTH: usize = 256;
/// Vectors whose chains of additions run side by side.
const CHAINS: usize = 8;
/// Most lanes of a vector, and so many sums of a row on every CPU.
const LANES: usize = 16;
/// Vectors of the fewest lanes that hold as many.
const FEWEST: usize = 2;

/// [`product`](super::tiled::product) for N = 1.
pub(super) fn product(isa: Isa, a: Rows<'_, f32>, panels: &[f32], bias: Option<&[f32]>, mut c: RowsMut<'_, f32>) {
    let ((m, k), lda) = (a.dim(), stride(&a));
    assert!(c.dim() == (m, 1), "C has another shape");
    c.fill(bias.map_or(0.0, |bias| bias[0]));
    let mut c = c.column_mut(0);
    let (mut column, mut sums) = ([0.0; DEPTH], [0.0; LANES]);
    for first in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - first);
        for (to, from) in column[..depth].iter_mut().zip(panels[first * PANEL..].iter().step_by(PANEL)) {
            *to = *from;
        }
        for row in (0..m).step_by(LANES) {
            let rows = LANES.min(m - row);
            let a = a.as_ptr().wrapping_add(row * lda + first);
            // SAFETY: `rows` rows of A from `row` on, and `depth` elements of the column.
            unsafe { dots(isa, rows, depth, a, lda, column.as_ptr(), &mut sums) };
            for (at, sum) in sums[..rows].iter().enumerate() {
                c[row + at] += *sum;
            }
        }
    }
}

simd_entry! {
    /// The products of up to [`LANES`] rows of A with a column of `k` elements.
    ///
    /// # Safety
    /// The rows and the column can be read.
    unsafe fn dots(rows: usize, k: usize, a: *const f32, lda: usize, column: *const f32, sums: &mut [f32; LANES]) =
        dots_body
}

/// # Safety
/// As for [`dots`]; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn dots_body<S: Simd>(
    rows: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    column: *const f32,
    sums: &mut [f32; LANES],
) {
    // SAFETY: the caller's contract; the blocks hold a vector for each of its lanes.
    unsafe {
        let (mut block, mut turned) = ([0.0f32; LANES * LANES], [0.0f32; LANES * LANES]);
        for first in (0..rows).step_by(S::LANES) {
            for row in first..rows.min(first + S::LANES) {
                // The same sixteen sums whatever a vector holds.
                let mut sums = [S::splat(0.0); FEWEST];
                for at in (0..k).step_by(LANES) {
                    for vector in 0..LANES / S::LANES {
                        let at = at + vector * S::LANES;
                        let (a, column) = (a.wrapping_add(row * lda + at), column.wrapping_add(at));
                        let left = k.saturating_sub(at);
                        sums[vector] = if left >= S::LANES {
                            S::load(a).mul_add(S::load(column), sums[vector])
                        } else {
                            S::load_first(a, left).mul_add(S::load_first(column, left), sums[vector])
                        };
                    }
                }
                for vector in 0..LANES / S::LANES {
                    let to = vector * S::LANES * S::LANES + (row - first) * S::LANES;
                    sums[vector].store(block.as_mut_ptr().add(to));
                }
            }
            // Now each row's lanes are added up, for all rows at once.
            let mut total = S::splat(0.0);
            for vector in 0..LANES / S::LANES {
                let block = block.as_ptr().add(vector * S::LANES * S::LANES);
                S::transpose(block, S::LANES, turned.as_mut_ptr(), S::LANES);
                for lane in 0..S::LANES {
                    total = total + S::load(turned.as_ptr().add(lane * S::LANES));
                }
            }
            total.store(sums.as_mut_ptr().add(first));
        }
    }
}

/// [`product`](super::tiled::product) for K = 1.
pub(super) fn of_depth_one(isa: Isa, a: Rows<'_, f32>, panels: &[f32], bias: Option<&[f32]>, mut c: RowsMut<'_, f32>) {
    let (m, n) = c.dim();
    assert!(a.dim() == (m, 1), "A has another shape");
    assert!(panels.len() >= panels_len(1, n), "the panels are too short");
    for (a, mut c) in a.column(0).into_iter().zip(c.rows_mut()) {
        let c = c.as_slice_mut().expect("a row lies dense");
        match bias {
            Some(bias) => c.copy_from_slice(&bias[..n]),
            None => c.fill(0.0),
        }
        // SAFETY: `n` elements of C and of the panels, which lie side by side at this depth.
        unsafe { add_scaled(isa, n, *a, panels.as_ptr(), c.as_mut_ptr()) };
    }
}

simd_entry! {
    /// c += a·b, of `n` elements.
    ///
    /// # Safety
    /// They can be read, and `c` written.
    unsafe fn add_scaled(n: usize, a: f32, b: *const f32, c: *mut f32) = add_scaled_body
}

/// # Safety
/// As for [`add_scaled`]; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn add_scaled_body<S: Simd>(n: usize, a: f32, b: *const f32, c: *mut f32) {
    // SAFETY: the caller's contract.
    unsafe {
        let a = S::splat(a);
        for at in (0..n).step_by(S::LANES) {
            let (b, c, left) = (b.add(at), c.add(at), n - at);
            if left >= S::LANES {
                a.mul_add(S::load(b), S::load(c)).store(c);
            } else {
                a.mul_add(S::load_first(b, left), S::load_first(c, left)).store_first(c, left);
            }
        }
    }
}

/// [`outer`](super::tiled::outer) for N = 1.
pub(super) fn outer(isa: Isa, a: Rows<'_, f32>, b: Rows<'_, f32>, add: bool, panels: &mut [f32]) {
    let ((m, k), lda, ldb) = (a.dim(), stride(&a), stride(&b));
    assert!(b.dim() == (m, 1), "B has another shape");
    if m == 0 {
        return;
    }
    let mut sums = [0.0; DEPTH];
    for first in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - first);
        // SAFETY: `m` rows of A from column `first` on, as many elements of B, and `depth` sums.
        unsafe {
            weighted_sums(isa, m, depth, a.as_ptr().wrapping_add(first), lda, b.as_ptr(), ldb, sums.as_mut_ptr())
        };
        for (to, sum) in panels[first * PANEL..].iter_mut().step_by(PANEL).zip(&sums[..depth]) {
            *to = if add { *to + *sum } else { *sum };
        }
    }
}

simd_entry! {
    /// sums(K) = Σ b·row of A.
    ///
    /// # Safety
    /// `m` rows of `k` elements of A and `m` elements of B, `ldb` apart, can be read, and `k` sums written.
    unsafe fn weighted_sums(
        m: usize, k: usize, a: *const f32, lda: usize, b: *const f32, ldb: usize, sums: *mut f32,
    ) = weighted_sums_body
}

/// # Safety
/// As for [`weighted_sums`]; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn weighted_sums_body<S: Simd>(
    m: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    sums: *mut f32,
) {
    // SAFETY: the caller's contract.
    unsafe {
        for first in (0..k).step_by(CHAINS * S::LANES) {
            let mut chains = [S::splat(0.0); CHAINS];
            let whole = first + CHAINS * S::LANES <= k;
            for row in 0..m {
                let (a, b) = (a.add(row * lda + first), S::splat(*b.add(row * ldb)));
                for v in 0..CHAINS {
                    let from = a.wrapping_add(v * S::LANES);
                    let a = match whole {
                        true => S::load(from),
                        false => S::load_first(from, S::LANES.min(k.saturating_sub(first + v * S::LANES))),
                    };
                    chains[v] = a.mul_add(b, chains[v]);
                }
            }
            for v in 0..CHAINS {
                let at = first + v * S::LANES;
                chains[v].store_first(sums.wrapping_add(at), S::LANES.min(k.saturating_sub(at)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::reference;
    use crate::kernel::testing::{close, filled, isas};
    use crate::kernel::view::{rows_apart, rows_apart_mut};

    #[test]
    fn one_column_and_depth_one_agree_with_the_reference() {
        let mut case = 0;
        for m in [1, 2, 15, 16, 17, 40] {
            for k in [1, 3, 8, 15, 16, 17, 64, 128, 130, 255, 256, 300] {
                case += 1;
                let (lda, ld) = (k + case as usize % 3, 1 + case as usize % 2);
                let tolerance = 1e-6 * (k.max(m) as f32).sqrt().max(4.0);
                let (a, bias) = (filled(case, m * lda), filled(case + 1, k));
                let (panels, c) = (filled(case + 2, panels_len(k, 1)), filled(case + 3, m * ld));
                let (wide, wide_c) = (filled(case + 4, panels_len(1, k)), filled(case + 5, m * lda));
                let (mut sums, b) = (filled(case + 6, panels_len(k, 1)), filled(case + 7, m * ld));
                let before = sums.clone();
                let (a, b) = (rows_apart(m, k, lda, &a), rows_apart(m, 1, ld, &b));
                reference::outer(a, b, true, &mut sums);
                for bias in [None, Some(&bias[..])] {
                    let (mut expected, mut expected_wide) = (c.clone(), wide_c.clone());
                    reference::product(a, &panels, bias, rows_apart_mut(m, 1, ld, &mut expected));
                    let narrow = rows_apart(m, 1, ld, &c);
                    reference::product(narrow, &wide, bias, rows_apart_mut(m, k, lda, &mut expected_wide));
                    for isa in isas() {
                        let (mut found, mut found_wide, mut found_sums) = (c.clone(), wide_c.clone(), before.clone());
                        product(isa, a, &panels, bias, rows_apart_mut(m, 1, ld, &mut found));
                        of_depth_one(isa, narrow, &wide, bias, rows_apart_mut(m, k, lda, &mut found_wide));
                        outer(isa, a, b, true, &mut found_sums);
                        close(&found, &expected, tolerance, &("column", isa, m, k, bias.is_some()));
                        close(&found_wide, &expected_wide, 1e-6, &("depth one", isa, m, k, bias.is_some()));
                        close(&found_sums, &sums, tolerance, &("outer", isa, m, k));
                    }
                }
            }
        }
    }
}
