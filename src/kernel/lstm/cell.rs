//! The LSTM cell on a group of units: activations forward and gradients of the gates backward, in registers.

use super::super::Isa;
use super::super::activation::{sigmoid_rational, tanh_rational};
use super::super::simd::{Simd, simd_entry};
use super::{GATES, GROUP};

simd_entry! {
    /// # Safety
    /// `sums` and `gates` hold `rows` × GATES elements, `c_prev`, `c` and `tanh_c` `rows` × GROUP, and `h` `rows` rows of
    /// `units` ≤ GROUP, `h_row` apart.
    unsafe fn forward_entry(
        rows: usize, units: usize, sums: *const f32, gates: *mut f32, c_prev: *const f32, c: *mut f32,
        tanh_c: *mut f32, h: *mut f32, h_row: usize,
    ) = forward_body
}

simd_entry! {
    /// # Safety
    /// As for `forward_entry`; `dz` and `dy` hold `rows` rows of `units`, `dz_row` and `dy_row` apart, and `dbias` GATES.
    unsafe fn backward_entry(
        rows: usize, units: usize, gates: *const f32, c_prev: *const f32, tanh_c: *const f32,
        dz: *const f32, dz_row: usize, dy: *const f32, dy_row: usize,
        dc: *mut f32, dgates: *mut f32, dbias: *mut f32,
    ) = backward_body
}

/// # Safety
/// As for `forward_entry`; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn forward_body<S: Simd>(
    rows: usize,
    units: usize,
    sums: *const f32,
    gates: *mut f32,
    c_prev: *const f32,
    c: *mut f32,
    tanh_c: *mut f32,
    h: *mut f32,
    h_row: usize,
) {
    for row in 0..rows {
        for lane in (0..GROUP).step_by(S::LANES) {
            // SAFETY: a vector of row `row`, of which `h` has only the units that exist.
            unsafe {
                let (sums, gates) = (sums.add(row * GATES + lane), gates.add(row * GATES + lane));
                let at = row * GROUP + lane;
                let i = sigmoid_rational(S::load(sums));
                let f = sigmoid_rational(S::load(sums.add(GROUP)));
                let g = tanh_rational(S::load(sums.add(2 * GROUP)));
                let o = sigmoid_rational(S::load(sums.add(3 * GROUP)));
                let cell = f.mul_add(S::load(c_prev.add(at)), i * g);
                let tanh_cell = tanh_rational(cell);
                i.store(gates);
                f.store(gates.add(GROUP));
                g.store(gates.add(2 * GROUP));
                o.store(gates.add(3 * GROUP));
                cell.store(c.add(at));
                tanh_cell.store(tanh_c.add(at));
                let h = h.wrapping_add(row * h_row + lane);
                if lane + S::LANES <= units {
                    (o * tanh_cell).store(h);
                } else {
                    (o * tanh_cell).store_first(h, units.saturating_sub(lane));
                }
            }
        }
    }
}

/// # Safety
/// As for `backward_entry`; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn backward_body<S: Simd>(
    rows: usize,
    units: usize,
    gates: *const f32,
    c_prev: *const f32,
    tanh_c: *const f32,
    dz: *const f32,
    dz_row: usize,
    dy: *const f32,
    dy_row: usize,
    dc: *mut f32,
    dgates: *mut f32,
    dbias: *mut f32,
) {
    for lane in (0..GROUP).step_by(S::LANES) {
        let exist = units.saturating_sub(lane).min(S::LANES);
        // SAFETY: as in the forward pass; of `dz` and `dy` only the units that exist are read.
        unsafe {
            let one = S::splat(1.0);
            let mut sums = [S::splat(0.0); 4];
            for row in 0..rows {
                let (gates, dgates) = (gates.add(row * GATES + lane), dgates.add(row * GATES + lane));
                let at = row * GROUP + lane;
                let (dz, dy) = (dz.wrapping_add(row * dz_row + lane), dy.wrapping_add(row * dy_row + lane));
                let dh = if exist == S::LANES {
                    S::load(dz) + S::load(dy)
                } else {
                    S::load_first(dz, exist) + S::load_first(dy, exist)
                };
                let (i, f) = (S::load(gates), S::load(gates.add(GROUP)));
                let (g, o) = (S::load(gates.add(2 * GROUP)), S::load(gates.add(3 * GROUP)));
                let tanh_cell = S::load(tanh_c.add(at));
                let dcell = (dh * o).mul_add(one - tanh_cell * tanh_cell, S::load(dc.add(at)));
                let gradients = [
                    dcell * g * i * (one - i),
                    dcell * S::load(c_prev.add(at)) * f * (one - f),
                    dcell * i * (one - g * g),
                    dh * tanh_cell * o * (one - o),
                ];
                for gate in 0..4 {
                    gradients[gate].store(dgates.add(gate * GROUP));
                    sums[gate] = sums[gate] + gradients[gate];
                }
                (dcell * f).store(dc.add(at));
            }
            for gate in 0..4 {
                let to = dbias.add(gate * GROUP + lane);
                (S::load(to) + sums[gate]).store(to);
            }
        }
    }
}

/// Whether `rows` rows of `units`, `row_len` apart, lie in a slice.
fn fits(len: usize, rows: usize, units: usize, row_len: usize) -> bool {
    rows == 0 || len >= (rows - 1) * row_len + units
}

/// From `sums` (rows × GATES) of pre-activations the activated gates, the cell state and its tanh, and the hidden state
/// of `units` units, whose rows are `h_row` apart.
pub(super) fn forward(
    isa: Isa,
    rows: usize,
    units: usize,
    sums: &[f32],
    gates: &mut [f32],
    c_prev: &[f32],
    c: &mut [f32],
    tanh_c: &mut [f32],
    h: &mut [f32],
    h_row: usize,
) {
    let cells = rows * GROUP;
    assert!(sums.len() >= 4 * cells && gates.len() >= 4 * cells, "the gates are too short");
    assert!(c_prev.len() >= cells && c.len() >= cells && tanh_c.len() >= cells, "the states are too short");
    assert!(units <= GROUP && fits(h.len(), rows, units, h_row), "h is too short");
    let (gates, c, tanh_c, h) = (gates.as_mut_ptr(), c.as_mut_ptr(), tanh_c.as_mut_ptr(), h.as_mut_ptr());
    // SAFETY: the lengths were just checked.
    unsafe { forward_entry(isa, rows, units, sums.as_ptr(), gates, c_prev.as_ptr(), c, tanh_c, h, h_row) }
}

/// From the gradient of the hidden state, the sum of `dz` and `dy` (each with the distance of its rows), and `dc`, that of
/// c_t from the future, which becomes that of c_{t-1}: the gradients of the pre-activations, whose sums over rows are
/// added to `dbias`.
pub(super) fn backward(
    isa: Isa,
    rows: usize,
    units: usize,
    gates: &[f32],
    c_prev: &[f32],
    tanh_c: &[f32],
    (dz, dz_row): (&[f32], usize),
    (dy, dy_row): (&[f32], usize),
    dc: &mut [f32],
    dgates: &mut [f32],
    dbias: &mut [f32],
) {
    let cells = rows * GROUP;
    assert!(gates.len() >= 4 * cells && dgates.len() >= 4 * cells, "the gates are too short");
    assert!(c_prev.len() >= cells && tanh_c.len() >= cells && dc.len() >= cells, "the states are too short");
    assert!(units <= GROUP && dbias.len() >= GATES, "the bias is too short");
    assert!(fits(dz.len(), rows, units, dz_row) && fits(dy.len(), rows, units, dy_row), "dh is too short");
    let (gates, c_prev, tanh_c) = (gates.as_ptr(), c_prev.as_ptr(), tanh_c.as_ptr());
    let (dc, dgates, dbias) = (dc.as_mut_ptr(), dgates.as_mut_ptr(), dbias.as_mut_ptr());
    let (dz, dy) = (dz.as_ptr(), dy.as_ptr());
    // SAFETY: the lengths were just checked.
    unsafe { backward_entry(isa, rows, units, gates, c_prev, tanh_c, dz, dz_row, dy, dy_row, dc, dgates, dbias) }
}
