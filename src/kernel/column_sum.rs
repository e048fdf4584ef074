//! Sums of columns: the gradient of a bias.

use super::isa::dispatch;
use super::view::{Rows, stride};
use super::{PANEL, Real};

/// sums(N) = the column sums of `a` (M, N), or += where `add`.
pub(crate) fn column_sums<T: Real>(a: Rows<'_, T>, add: bool, sums: &mut [T]) {
    assert!(sums.len() >= a.ncols(), "the sums are too short");
    sum(a, add, sums);
}

/// Rows that are summed in T before their sum goes into an f64: long sums stay exact.
const SUMMED: usize = 64;

dispatch! {
    fn sum<T>(a: Rows<'_, T>, add: bool, sums: &mut [T]) {
        let ((m, n), lda) = (a.dim(), stride(&a));
        for first in (0..n).step_by(PANEL) {
            let width = PANEL.min(n - first);
            let mut totals = [0.0; PANEL];
            for block in (0..m).step_by(SUMMED) {
                let rows = SUMMED.min(m - block);
                let from = a.as_ptr().wrapping_add(block * lda + first);
                // SAFETY: `rows` of the view's rows, which lie dense, from column `first` on.
                let sums = unsafe {
                    if width == PANEL { sum_whole(rows, from, lda) } else { sum_some(rows, width, from, lda) }
                };
                for lane in 0..PANEL {
                    totals[lane] += sums[lane].to_f64();
                }
            }
            for (sum, total) in sums[first..first + width].iter_mut().zip(totals) {
                *sum = if add { *sum + T::of(total) } else { T::of(total) };
            }
        }
    }
}

/// The sums of a whole panel's columns.
///
/// # Safety
/// `rows` rows of [`PANEL`] elements, `stride` apart, can be read.
#[inline(always)]
unsafe fn sum_whole<T: Real>(rows: usize, from: *const T, stride: usize) -> [T; PANEL] {
    // Two chains, since each addition waits for the one before.
    let (mut even, mut odd) = ([T::ZERO; PANEL], [T::ZERO; PANEL]);
    for pair in 0..rows / 2 {
        let above = from.wrapping_add(2 * pair * stride);
        // SAFETY: the caller's contract.
        let (above, below) =
            unsafe { (&*above.cast::<[T; PANEL]>(), &*above.wrapping_add(stride).cast::<[T; PANEL]>()) };
        for lane in 0..PANEL {
            even[lane] += above[lane];
            odd[lane] += below[lane];
        }
    }
    if rows % 2 == 1 {
        // SAFETY: the caller's contract.
        let last = unsafe { &*from.wrapping_add((rows - 1) * stride).cast::<[T; PANEL]>() };
        for lane in 0..PANEL {
            even[lane] += last[lane];
        }
    }
    for lane in 0..PANEL {
        even[lane] += odd[lane];
    }
    even
}

/// The sums of `width` columns, zeros behind.
///
/// # Safety
/// `rows` rows of `width` elements, `stride` apart, can be read.
#[inline(always)]
unsafe fn sum_some<T: Real>(rows: usize, width: usize, from: *const T, stride: usize) -> [T; PANEL] {
    let mut sums = [T::ZERO; PANEL];
    for row in 0..rows {
        // SAFETY: the caller's contract.
        let row = unsafe { std::slice::from_raw_parts(from.wrapping_add(row * stride), width) };
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += *value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{close, filled};
    use crate::kernel::view::rows_apart;

    #[test]
    fn columns_are_added_up() {
        for (m, n, apart) in [(0, 3, 3), (1, 1, 2), (5, 40, 40), (33, 31, 35), (64, 64, 64), (1000, 3, 4)] {
            let (a, before) = (filled(6, m * apart), filled(1, n));
            let exact: Vec<f64> = (0..n).map(|at| (0..m).map(|row| f64::from(a[row * apart + at])).sum()).collect();
            for add in [true, false] {
                let mut sums = before.clone();
                column_sums(rows_apart(m, n, apart, &a), add, &mut sums);
                let expected: Vec<f32> = exact
                    .iter()
                    .zip(&before)
                    .map(|(sum, before)| (sum + f64::from(*before) * f64::from(add)) as f32)
                    .collect();
                close(&sums, &expected, 1e-6, &(m, n, add));
            }
        }
    }
}
