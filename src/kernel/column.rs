//! Products of one column, and of depth one: those of a layer with a single output, for which a tile is too wide.

use super::product::rows_fit;
use super::simd::{Simd, simd_entry};
use super::{Init, Isa, PANEL, panels_len};

/// Depth that is taken at a time; the column, which lies scattered in a panel, is gathered for it.
const DEPTH: usize = 256;
/// Vectors whose chains of additions run side by side.
const CHAINS: usize = 8;
/// Most lanes of a vector, and so many sums of a row on every CPU.
const LANES: usize = 16;
/// Vectors of the fewest lanes that hold as many.
const FEWEST: usize = 2;

/// [`Real::product`](super::Real::product) for N = 1.
pub(super) fn product(
    isa: Isa,
    m: usize,
    k: usize,
    a: &[f32],
    lda: usize,
    panels: &[f32],
    init: Init<'_, f32>,
    c: &mut [f32],
    ldc: usize,
) {
    assert!(rows_fit(a.len(), m, k, lda), "A is too short");
    assert!(rows_fit(c.len(), m, 1, ldc), "C is too short");
    let begin = match init {
        Init::Zero => Some(0.0),
        Init::Bias(bias) => Some(bias[0]),
        Init::Add => None,
    };
    if let Some(begin) = begin {
        c.iter_mut().step_by(ldc.max(1)).take(m).for_each(|c| *c = begin);
    }
    let (mut column, mut sums) = ([0.0; DEPTH], [0.0; LANES]);
    for first in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - first);
        for (to, from) in column[..depth].iter_mut().zip(panels[first * PANEL..].iter().step_by(PANEL)) {
            *to = *from;
        }
        for row in (0..m).step_by(LANES) {
            let rows = LANES.min(m - row);
            let a = a[row * lda + first..].as_ptr();
            // SAFETY: `rows` rows of A from `row` on, and `depth` elements of the column.
            unsafe { dots(isa, rows, depth, a, lda, column.as_ptr(), &mut sums) };
            for (c, sum) in c[row * ldc..].iter_mut().step_by(ldc.max(1)).zip(&sums[..rows]) {
                *c += *sum;
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

/// [`Real::product`](super::Real::product) for K = 1.
pub(super) fn of_depth_one(
    isa: Isa,
    m: usize,
    n: usize,
    a: &[f32],
    lda: usize,
    panels: &[f32],
    init: Init<'_, f32>,
    c: &mut [f32],
    ldc: usize,
) {
    assert!(rows_fit(a.len(), m, 1, lda), "A is too short");
    assert!(rows_fit(c.len(), m, n, ldc), "C is too short");
    assert!(panels.len() >= panels_len(1, n), "the panels are too short");
    for row in 0..m {
        let c = &mut c[row * ldc..][..n];
        match init {
            Init::Zero => c.fill(0.0),
            Init::Bias(bias) => c.copy_from_slice(&bias[..n]),
            Init::Add => {}
        }
        // SAFETY: `n` elements of C and of the panels, which lie side by side at this depth.
        unsafe { add_scaled(isa, n, a[row * lda], panels.as_ptr(), c.as_mut_ptr()) };
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

/// [`Real::outer`](super::Real::outer) for N = 1.
pub(super) fn outer(
    isa: Isa,
    m: usize,
    k: usize,
    a: &[f32],
    lda: usize,
    b: &[f32],
    ldb: usize,
    add: bool,
    panels: &mut [f32],
) {
    assert!(rows_fit(a.len(), m, k, lda), "A is too short");
    assert!(rows_fit(b.len(), m, 1, ldb), "B is too short");
    if m == 0 {
        return;
    }
    let mut sums = [0.0; DEPTH];
    for first in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - first);
        // SAFETY: `m` rows of A from column `first` on, as many elements of B, and `depth` sums.
        unsafe { weighted_sums(isa, m, depth, a[first..].as_ptr(), lda, b.as_ptr(), ldb, sums.as_mut_ptr()) };
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
    use super::super::reference;
    use super::super::testing::{close, filled, isas};
    use super::*;

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
                reference::outer(m, k, 1, &a, lda, &b, ld, &mut sums);
                for init in [Init::Zero, Init::Add, Init::Bias(&bias)] {
                    let (mut expected, mut expected_wide) = (c.clone(), wide_c.clone());
                    reference::product(m, k, 1, &a, lda, &panels, init, &mut expected, ld);
                    reference::product(m, 1, k, &c, ld, &wide, init, &mut expected_wide, lda);
                    for isa in isas() {
                        let (mut found, mut found_wide, mut found_sums) = (c.clone(), wide_c.clone(), before.clone());
                        product(isa, m, k, &a, lda, &panels, init, &mut found, ld);
                        of_depth_one(isa, m, k, &c, ld, &wide, init, &mut found_wide, lda);
                        outer(isa, m, k, &a, lda, &b, ld, true, &mut found_sums);
                        close(&found, &expected, tolerance, &("column", isa, m, k, init));
                        close(&found_wide, &expected_wide, 1e-6, &("depth one", isa, m, k, init));
                        close(&found_sums, &sums, tolerance, &("outer", isa, m, k));
                    }
                }
            }
        }
    }
}
