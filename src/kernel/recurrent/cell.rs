//! A cell on a group of units: activations forward and gradients of the gates backward, in registers.
//!
//! A row of gates has four blocks of [`GROUP`] units: i, f, g and o of an LSTM; r, z, n and W_hn·h + b_hn of a GRU, of whose
//! sums the third block is of the hidden state and the fourth of the input.

use super::{CellKind, GATES, GROUP};
use crate::kernel::Isa;
use crate::kernel::activation::{sigmoid_rational, tanh_rational};
use crate::kernel::simd::{Simd, simd_entry};
use crate::kernel::view::{Rows, RowsMut, stride};

/// What a group's cell keeps of a step for the way back: rows of [`GATES`] and of [`GROUP`].
pub(super) struct Kept<'a> {
    /// Activated gates.
    pub gates: &'a mut [f32],
    /// The state before the step: c of an LSTM, h of a GRU.
    pub before: &'a [f32],
    /// The state after it.
    pub after: &'a mut [f32],
    /// tanh(c) of an LSTM.
    pub tanh: &'a mut [f32],
}

/// The pointers of a forward step.
struct Forward {
    rows: usize,
    units: usize,
    sums: *const f32,
    gates: *mut f32,
    before: *const f32,
    after: *mut f32,
    tanh: *mut f32,
    h: *mut f32,
    h_row: usize,
}

/// The pointers of a backward step.
struct Backward {
    rows: usize,
    units: usize,
    gates: *const f32,
    before: *const f32,
    tanh: *const f32,
    dz: *const f32,
    dz_row: usize,
    dy: *const f32,
    dy_row: usize,
    carried: *mut f32,
    dgates: *mut f32,
    dbias: *mut f32,
}

simd_entry! {
    /// # Safety
    /// `sums` and `gates` hold `rows` × GATES elements, `before`, `after` and `tanh` `rows` × GROUP, and `h` `rows` rows of
    /// `units` ≤ GROUP, `h_row` apart.
    unsafe fn lstm_forward(step: &Forward) = lstm_forward_body
}

simd_entry! {
    /// # Safety
    /// As for `lstm_forward`.
    unsafe fn gru_forward(step: &Forward) = gru_forward_body
}

simd_entry! {
    /// # Safety
    /// As for `lstm_forward`; `dz` and `dy` hold `rows` rows of `units`, `dz_row` and `dy_row` apart, and `dbias` GATES.
    unsafe fn lstm_backward(step: &Backward) = lstm_backward_body
}

simd_entry! {
    /// # Safety
    /// As for `lstm_backward`.
    unsafe fn gru_backward(step: &Backward) = gru_backward_body
}

/// Stores a vector of `units` that may not all exist.
///
/// # Safety
/// `units` less `lane` elements can be written; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn store_units<S: Simd>(value: S, to: *mut f32, lane: usize, units: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        if lane + S::LANES <= units {
            value.store(to);
        } else {
            value.store_first(to, units.saturating_sub(lane));
        }
    }
}

/// # Safety
/// As for `lstm_forward`; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn lstm_forward_body<S: Simd>(step: &Forward) {
    for row in 0..step.rows {
        for lane in (0..GROUP).step_by(S::LANES) {
            // SAFETY: a vector of row `row`, of which `h` has only the units that exist.
            unsafe {
                let (sums, gates) = (step.sums.add(row * GATES + lane), step.gates.add(row * GATES + lane));
                let at = row * GROUP + lane;
                let i = sigmoid_rational(S::load(sums));
                let f = sigmoid_rational(S::load(sums.add(GROUP)));
                let g = tanh_rational(S::load(sums.add(2 * GROUP)));
                let o = sigmoid_rational(S::load(sums.add(3 * GROUP)));
                let cell = f.mul_add(S::load(step.before.add(at)), i * g);
                let tanh_cell = tanh_rational(cell);
                i.store(gates);
                f.store(gates.add(GROUP));
                g.store(gates.add(2 * GROUP));
                o.store(gates.add(3 * GROUP));
                cell.store(step.after.add(at));
                tanh_cell.store(step.tanh.add(at));
                store_units(o * tanh_cell, step.h.wrapping_add(row * step.h_row + lane), lane, step.units);
            }
        }
    }
}

/// # Safety
/// As for `gru_forward`; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn gru_forward_body<S: Simd>(step: &Forward) {
    for row in 0..step.rows {
        for lane in (0..GROUP).step_by(S::LANES) {
            // SAFETY: as in `lstm_forward_body`.
            unsafe {
                let (sums, gates) = (step.sums.add(row * GATES + lane), step.gates.add(row * GATES + lane));
                let at = row * GROUP + lane;
                let r = sigmoid_rational(S::load(sums));
                let z = sigmoid_rational(S::load(sums.add(GROUP)));
                let hidden = S::load(sums.add(2 * GROUP));
                let n = tanh_rational(r.mul_add(hidden, S::load(sums.add(3 * GROUP))));
                // (1 - z)·n + z·h
                let h = z.mul_add(S::load(step.before.add(at)) - n, n);
                r.store(gates);
                z.store(gates.add(GROUP));
                n.store(gates.add(2 * GROUP));
                hidden.store(gates.add(3 * GROUP));
                h.store(step.after.add(at));
                store_units(h, step.h.wrapping_add(row * step.h_row + lane), lane, step.units);
            }
        }
    }
}

/// The gradient of h_t for a vector of units, 0 where they do not exist.
///
/// # Safety
/// `exist` elements of `dz` and `dy` can be read; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn gradient_of_h<S: Simd>(step: &Backward, row: usize, lane: usize, exist: usize) -> S {
    let (dz, dy) = (step.dz.wrapping_add(row * step.dz_row + lane), step.dy.wrapping_add(row * step.dy_row + lane));
    // SAFETY: the caller's contract.
    unsafe {
        if exist == S::LANES { S::load(dz) + S::load(dy) } else { S::load_first(dz, exist) + S::load_first(dy, exist) }
    }
}

/// Leaves the gradients of a row's four gates, and adds them up.
///
/// # Safety
/// `dgates` holds a vector of each block; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn leave<S: Simd>(gradients: [S; 4], dgates: *mut f32, sums: &mut [S; 4]) {
    for gate in 0..4 {
        // SAFETY: the caller's contract.
        unsafe { gradients[gate].store(dgates.add(gate * GROUP)) };
        sums[gate] = sums[gate] + gradients[gate];
    }
}

/// Adds the four gates' sums to those of the bias.
///
/// # Safety
/// As for [`leave`].
#[inline(always)]
unsafe fn add_to_bias<S: Simd>(sums: [S; 4], dbias: *mut f32) {
    for gate in 0..4 {
        // SAFETY: the caller's contract.
        unsafe {
            let to = dbias.add(gate * GROUP);
            (S::load(to) + sums[gate]).store(to);
        }
    }
}

/// # Safety
/// As for `lstm_backward`; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn lstm_backward_body<S: Simd>(step: &Backward) {
    for lane in (0..GROUP).step_by(S::LANES) {
        let exist = step.units.saturating_sub(lane).min(S::LANES);
        // SAFETY: as in the forward pass; of `dz` and `dy` only the units that exist are read.
        unsafe {
            let one = S::splat(1.0);
            let mut sums = [S::splat(0.0); 4];
            for row in 0..step.rows {
                let (gates, dgates) = (step.gates.add(row * GATES + lane), step.dgates.add(row * GATES + lane));
                let at = row * GROUP + lane;
                let dh = gradient_of_h::<S>(step, row, lane, exist);
                let (i, f) = (S::load(gates), S::load(gates.add(GROUP)));
                let (g, o) = (S::load(gates.add(2 * GROUP)), S::load(gates.add(3 * GROUP)));
                let tanh_cell = S::load(step.tanh.add(at));
                let dcell = (dh * o).mul_add(one - tanh_cell * tanh_cell, S::load(step.carried.add(at)));
                let gradients = [
                    dcell * g * i * (one - i),
                    dcell * S::load(step.before.add(at)) * f * (one - f),
                    dcell * i * (one - g * g),
                    dh * tanh_cell * o * (one - o),
                ];
                leave(gradients, dgates, &mut sums);
                (dcell * f).store(step.carried.add(at));
            }
            add_to_bias(sums, step.dbias.add(lane));
        }
    }
}

/// # Safety
/// As for `gru_backward`; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn gru_backward_body<S: Simd>(step: &Backward) {
    for lane in (0..GROUP).step_by(S::LANES) {
        let exist = step.units.saturating_sub(lane).min(S::LANES);
        // SAFETY: as in `lstm_backward_body`.
        unsafe {
            let one = S::splat(1.0);
            let mut sums = [S::splat(0.0); 4];
            for row in 0..step.rows {
                let (gates, dgates) = (step.gates.add(row * GATES + lane), step.dgates.add(row * GATES + lane));
                let at = row * GROUP + lane;
                let dh = gradient_of_h::<S>(step, row, lane, exist) + S::load(step.carried.add(at));
                let (r, z) = (S::load(gates), S::load(gates.add(GROUP)));
                let (n, hidden) = (S::load(gates.add(2 * GROUP)), S::load(gates.add(3 * GROUP)));
                let dn = dh * (one - z) * (one - n * n);
                let gradients =
                    [dn * hidden * r * (one - r), dh * (S::load(step.before.add(at)) - n) * z * (one - z), dn * r, dn];
                leave(gradients, dgates, &mut sums);
                (dh * z).store(step.carried.add(at));
            }
            add_to_bias(sums, step.dbias.add(lane));
        }
    }
}

/// From `sums` (rows × GATES) of pre-activations the activated gates, the state, and the hidden state `h` (rows, units).
pub(super) fn forward(isa: Isa, kind: CellKind, sums: &[f32], kept: Kept<'_>, mut h: RowsMut<'_, f32>) {
    let (rows, units) = h.dim();
    let cells = rows * GROUP;
    assert!(sums.len() >= 4 * cells && kept.gates.len() >= 4 * cells, "the gates are too short");
    assert!(kept.before.len() >= cells && kept.after.len() >= cells, "the states are too short");
    assert!(kind == CellKind::Gru || kept.tanh.len() >= cells, "the states are too short");
    assert!(units <= GROUP, "h is too wide");
    let step = Forward {
        rows,
        units,
        sums: sums.as_ptr(),
        gates: kept.gates.as_mut_ptr(),
        before: kept.before.as_ptr(),
        after: kept.after.as_mut_ptr(),
        tanh: kept.tanh.as_mut_ptr(),
        h_row: stride(&h),
        h: h.as_mut_ptr(),
    };
    // SAFETY: the lengths were just checked.
    unsafe {
        match kind {
            CellKind::Lstm => lstm_forward(isa, &step),
            CellKind::Gru => gru_forward(isa, &step),
        }
    }
}

/// What a group's cell reads on the way back, as the forward pass left it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub gates: &'a [f32],
    pub before: &'a [f32],
    pub tanh: &'a [f32],
}

/// What it leaves there.
pub(super) struct Left<'a> {
    /// The part of the state's gradient that goes to the step before past the gates; overwritten.
    pub carried: &'a mut [f32],
    /// Of the pre-activations.
    pub dgates: &'a mut [f32],
    /// Their sums over rows, added.
    pub dbias: &'a mut [f32],
}

/// The gradients of the pre-activations from that of the hidden state, the sum of `dz` and `dy` (rows, units).
pub(super) fn backward(isa: Isa, kind: CellKind, seen: Seen<'_>, dz: Rows<'_, f32>, dy: Rows<'_, f32>, left: Left<'_>) {
    let (rows, units) = dz.dim();
    let cells = rows * GROUP;
    assert!(seen.gates.len() >= 4 * cells && left.dgates.len() >= 4 * cells, "the gates are too short");
    assert!(seen.before.len() >= cells && left.carried.len() >= cells, "the states are too short");
    assert!(kind == CellKind::Gru || seen.tanh.len() >= cells, "the states are too short");
    assert!(units <= GROUP && left.dbias.len() >= GATES && dy.dim() == dz.dim(), "the bias or dy is too short");
    let step = Backward {
        rows,
        units,
        gates: seen.gates.as_ptr(),
        before: seen.before.as_ptr(),
        tanh: seen.tanh.as_ptr(),
        dz: dz.as_ptr(),
        dz_row: stride(&dz),
        dy: dy.as_ptr(),
        dy_row: stride(&dy),
        carried: left.carried.as_mut_ptr(),
        dgates: left.dgates.as_mut_ptr(),
        dbias: left.dbias.as_mut_ptr(),
    };
    // SAFETY: the lengths were just checked.
    unsafe {
        match kind {
            CellKind::Lstm => lstm_backward(isa, &step),
            CellKind::Gru => gru_backward(isa, &step),
        }
    }
}
