//! Transposition of dense matrices for f32, in blocks of registers.

use super::Isa;
use super::simd::{Simd, simd_entry};

simd_entry! {
    /// # Safety
    /// `from` and `to` hold rows × columns elements.
    unsafe fn transpose_entry(rows: usize, columns: usize, from: *const f32, to: *mut f32) = transpose_body
}

/// # Safety
/// As for `transpose_entry`; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn transpose_body<S: Simd>(rows: usize, columns: usize, from: *const f32, to: *mut f32) {
    for first_row in (0..rows).step_by(S::LANES) {
        for first_column in (0..columns).step_by(S::LANES) {
            // SAFETY: a block inside both matrices, by the caller's contract.
            unsafe {
                if first_row + S::LANES <= rows && first_column + S::LANES <= columns {
                    let (from, to) =
                        (from.add(first_row * columns + first_column), to.add(first_column * rows + first_row));
                    S::transpose(from, columns, to, rows);
                    continue;
                }
                for column in first_column..columns.min(first_column + S::LANES) {
                    for row in first_row..rows.min(first_row + S::LANES) {
                        *to.add(column * rows + row) = *from.add(row * columns + column);
                    }
                }
            }
        }
    }
}

/// See [`Real::transpose`](super::Real::transpose).
pub(crate) fn transpose(isa: Isa, rows: usize, columns: usize, from: &[f32], to: &mut [f32]) {
    for (from, to) in from.chunks_exact(rows * columns).zip(to.chunks_exact_mut(rows * columns)) {
        // SAFETY: the chunks have rows × columns elements.
        unsafe { transpose_entry(isa, rows, columns, from.as_ptr(), to.as_mut_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{filled, isas};
    use super::super::{Real, reference};
    use super::*;

    #[test]
    fn any_matrices_agree_with_the_reference() {
        for (rows, columns) in [(1, 5), (8, 8), (16, 32), (17, 16), (144, 64), (33, 50)] {
            let from = filled(rows as u64, 3 * rows * columns);
            let (mut expected, mut back) = (vec![0.0; from.len()], vec![0.0; from.len()]);
            reference::transpose(rows, columns, &from, &mut expected);
            for isa in isas() {
                let mut to = vec![f32::NAN; from.len()];
                transpose(isa, rows, columns, &from, &mut to);
                assert_eq!(to, expected, "{isa:?} {rows} {columns}");
            }
            f32::transpose(columns, rows, &expected, &mut back);
            assert_eq!(back, from);
        }
    }
}
