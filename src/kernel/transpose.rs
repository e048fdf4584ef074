//! Transposition of dense matrices and of panels for f32, in blocks of registers.

use super::simd::{Simd, simd_entry};
use super::{Isa, PANEL, panels_len};

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

simd_entry! {
    /// # Safety
    /// `panels` are K×N, `transposed` N×K.
    unsafe fn panels_entry(k: usize, n: usize, panels: *const f32, transposed: *mut f32) = panels_body
}

/// # Safety
/// As for `panels_entry`; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn panels_body<S: Simd>(k: usize, n: usize, panels: *const f32, transposed: *mut f32) {
    // Blocks of 32 × 32 are contiguous on both sides.
    for depth in (0..k).step_by(PANEL) {
        for col in (0..n).step_by(PANEL) {
            let (height, width) = (PANEL.min(k - depth), PANEL.min(n - col));
            // SAFETY: the block of `height` rows at `from` and of `width` rows at `to` lie in the panels.
            unsafe {
                let from = panels.add(col * k + depth * PANEL);
                let to = transposed.add(depth * n + col * PANEL);
                for row in (0..PANEL).step_by(S::LANES) {
                    for column in (0..width).step_by(S::LANES) {
                        if row + S::LANES <= height && column + S::LANES <= width {
                            S::transpose(from.add(row * PANEL + column), PANEL, to.add(column * PANEL + row), PANEL);
                            continue;
                        }
                        for c in column..width.min(column + S::LANES) {
                            for r in row..row + S::LANES {
                                *to.add(c * PANEL + r) = if r < height { *from.add(r * PANEL + c) } else { 0.0 };
                            }
                        }
                    }
                }
            }
        }
    }
}

/// See [`Real::transpose_panels`](super::Real::transpose_panels).
pub(crate) fn transpose_panels(isa: Isa, k: usize, n: usize, panels: &[f32], transposed: &mut [f32]) {
    assert!(panels.len() >= panels_len(k, n) && transposed.len() >= panels_len(n, k), "the panels are too short");
    // SAFETY: the lengths were just checked.
    unsafe { panels_entry(isa, k, n, panels.as_ptr(), transposed.as_mut_ptr()) }
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
