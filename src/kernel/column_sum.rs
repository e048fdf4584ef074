//! Sums of columns: the gradient of a bias, for f32.

use super::simd::{Simd, simd_entry};
use super::view::{Rows, stride};
use super::{Isa, PANEL};

/// Rows that are summed in f32 before their sum goes into an f64: long sums stay exact.
const SUMMED: usize = 64;
/// Vectors of columns whose chains of additions run side by side: half a panel at most.
const VECTORS: usize = 2;

/// sums(N) = the column sums of `a` (M, N), or += where `add`.
pub(super) fn column_sums(isa: Isa, a: Rows<'_, f32>, add: bool, sums: &mut [f32]) {
    let ((m, n), apart) = (a.dim(), stride(&a));
    for (panel, sums) in sums[..n].chunks_mut(PANEL).enumerate() {
        let (width, mut totals) = (sums.len(), [0.0f64; PANEL]);
        for first in (0..m).step_by(SUMMED) {
            let (rows, from) = (SUMMED.min(m - first), a.as_ptr().wrapping_add(first * apart + panel * PANEL));
            let mut block = [0.0; PANEL];
            // SAFETY: `rows` of the view's rows, which lie dense, and `width` of their columns; the block is a panel wide.
            unsafe { block_sums(isa, rows, width, from, apart, block.as_mut_ptr()) };
            for (total, sum) in totals.iter_mut().zip(block) {
                *total += f64::from(sum);
            }
        }
        for (sum, total) in sums.iter_mut().zip(totals) {
            *sum = if add { *sum + total as f32 } else { total as f32 };
        }
    }
}

simd_entry! {
    /// The sums of `width` columns of a panel.
    ///
    /// # Safety
    /// `rows` rows of `width` elements, `apart` apart, can be read, and a panel's width of `sums` written.
    unsafe fn block_sums(rows: usize, width: usize, from: *const f32, apart: usize, sums: *mut f32) = block_sums_body
}

/// # Safety
/// As for [`block_sums`]; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn block_sums_body<S: Simd>(rows: usize, width: usize, from: *const f32, apart: usize, sums: *mut f32) {
    for first in (0..width).step_by(VECTORS * S::LANES) {
        // Two chains, since each addition waits for the one before.
        // SAFETY: the CPU has the instruction set.
        let zeros = unsafe { [S::splat(0.0); VECTORS] };
        let (mut even, mut odd) = (zeros, zeros);
        let whole = first + VECTORS * S::LANES <= width;
        let add = |row: usize, chain: &mut [S; VECTORS]| {
            for vector in 0..VECTORS {
                let at = first + vector * S::LANES;
                let from = from.wrapping_add(row * apart + at);
                // SAFETY: the caller's contract; past `width` nothing is read.
                let values = unsafe {
                    if whole { S::load(from) } else { S::load_first(from, width.saturating_sub(at).min(S::LANES)) }
                };
                chain[vector] = chain[vector] + values;
            }
        };
        for pair in 0..rows / 2 {
            add(2 * pair, &mut even);
            add(2 * pair + 1, &mut odd);
        }
        if rows % 2 == 1 {
            add(rows - 1, &mut even);
        }
        for vector in 0..VECTORS {
            // SAFETY: as above; a panel has room for whole vectors.
            unsafe { (even[vector] + odd[vector]).store(sums.add(first + vector * S::LANES)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{close, filled, isas};
    use crate::kernel::view::rows_apart;

    #[test]
    fn columns_are_added_up() {
        for (m, n, apart) in [(0, 3, 3), (1, 1, 2), (5, 40, 40), (33, 31, 35), (64, 64, 64), (1000, 3, 4)] {
            let (a, before) = (filled(6, m * apart), filled(1, n));
            let exact: Vec<f64> = (0..n).map(|at| (0..m).map(|row| f64::from(a[row * apart + at])).sum()).collect();
            for (isa, add) in isas().flat_map(|isa| [(isa, true), (isa, false)]) {
                let mut sums = before.clone();
                column_sums(isa, rows_apart(m, n, apart, &a), add, &mut sums);
                let expected: Vec<f32> = exact
                    .iter()
                    .zip(&before)
                    .map(|(sum, before)| (sum + f64::from(*before) * f64::from(add)) as f32)
                    .collect();
                close(&sums, &expected, 1e-6, &(isa, m, n, add));
            }
        }
    }
}
