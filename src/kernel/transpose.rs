//! Transposition of dense matrices for f32, in blocks of registers.

use super::Isa;
use super::simd::{Simd, simd_entry};

simd_entry! {
    /// Transposes `rows` rows of `columns` elements; rows are `from_row` and `to_row` apart.
    ///
    /// # Safety
    /// They can be read and written.
    pub(super) unsafe fn transpose_strided(
        rows: usize, columns: usize, from: *const f32, from_row: usize, to: *mut f32, to_row: usize,
    ) = transpose_body
}

/// See [`transpose_strided`].
///
/// # Safety
/// As there; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn transpose_body<S: Simd>(
    rows: usize,
    columns: usize,
    from: *const f32,
    from_row: usize,
    to: *mut f32,
    to_row: usize,
) {
    for column in (0..columns).step_by(S::LANES) {
        for row in (0..rows).step_by(S::LANES) {
            // SAFETY: the caller's contract; whole blocks lie within.
            unsafe {
                let (from, to) = (from.add(row * from_row + column), to.add(column * to_row + row));
                if row + S::LANES <= rows && column + S::LANES <= columns {
                    S::transpose(from, from_row, to, to_row);
                    continue;
                }
                for c in 0..S::LANES.min(columns - column) {
                    for r in 0..S::LANES.min(rows - row) {
                        *to.add(c * to_row + r) = *from.add(r * from_row + c);
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
        unsafe { transpose_strided(isa, rows, columns, from.as_ptr(), columns, to.as_mut_ptr(), rows) };
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
