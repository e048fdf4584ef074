//! The LSTM cell for f32: see [`Real::lstm_cell_forward`](super::Real::lstm_cell_forward). Equations as in torch.nn.LSTM.

use super::Isa;
use super::activation::{sigmoid, tanh};
use super::simd::{Simd, simd_entry};

simd_entry! {
    /// # Safety
    /// `gates` holds m × 4·hidden elements and the others m × hidden.
    unsafe fn forward_entry(
        m: usize, hidden: usize, gates: *mut f32, c_prev: *const f32, c: *mut f32, tanh_c: *mut f32, h: *mut f32,
    ) = forward_body
}

simd_entry! {
    /// # Safety
    /// As for `forward_entry`.
    unsafe fn backward_entry(
        m: usize, hidden: usize, gates: *const f32, c_prev: *const f32, tanh_c: *const f32, dh: *const f32,
        dc: *mut f32, dgates: *mut f32,
    ) = backward_body
}

/// `n` elements; the test is the same for a whole row and predicted.
///
/// # Safety
/// They can be read; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn read<S: Simd>(from: *const f32, n: usize) -> S {
    // SAFETY: the caller's contract.
    unsafe { if n >= S::LANES { S::load(from) } else { S::load_first(from, n) } }
}

/// Writes `n` elements.
///
/// # Safety
/// They can be written.
#[inline(always)]
unsafe fn write<S: Simd>(value: S, to: *mut f32, n: usize) {
    // SAFETY: the caller's contract.
    unsafe { if n >= S::LANES { value.store(to) } else { value.store_first(to, n) } }
}

/// # Safety
/// As for `forward_entry`; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn forward_body<S: Simd>(
    m: usize,
    hidden: usize,
    gates: *mut f32,
    c_prev: *const f32,
    c: *mut f32,
    tanh_c: *mut f32,
    h: *mut f32,
) {
    for row in 0..m {
        for unit in (0..hidden).step_by(S::LANES) {
            let n = hidden - unit;
            let at = row * hidden + unit;
            // SAFETY: `n` units of row `row` of arrays of m × hidden, or of m × 4·hidden.
            unsafe {
                let gates = gates.add(row * 4 * hidden + unit);
                let i = sigmoid(read::<S>(gates, n));
                let f = sigmoid(read::<S>(gates.add(hidden), n));
                let g = tanh(read::<S>(gates.add(2 * hidden), n));
                let o = sigmoid(read::<S>(gates.add(3 * hidden), n));
                let cell = f.mul_add(read(c_prev.add(at), n), i * g);
                let tanh_cell = tanh(cell);
                write(i, gates, n);
                write(f, gates.add(hidden), n);
                write(g, gates.add(2 * hidden), n);
                write(o, gates.add(3 * hidden), n);
                write(cell, c.add(at), n);
                write(tanh_cell, tanh_c.add(at), n);
                write(o * tanh_cell, h.add(at), n);
            }
        }
    }
}

/// # Safety
/// As for `backward_entry`; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn backward_body<S: Simd>(
    m: usize,
    hidden: usize,
    gates: *const f32,
    c_prev: *const f32,
    tanh_c: *const f32,
    dh: *const f32,
    dc: *mut f32,
    dgates: *mut f32,
) {
    for row in 0..m {
        for unit in (0..hidden).step_by(S::LANES) {
            let n = hidden - unit;
            let at = row * hidden + unit;
            // SAFETY: as in the forward pass.
            unsafe {
                let one = S::splat(1.0);
                let gates = gates.add(row * 4 * hidden + unit);
                let dgates = dgates.add(row * 4 * hidden + unit);
                let (i, f) = (read::<S>(gates, n), read::<S>(gates.add(hidden), n));
                let (g, o) = (read::<S>(gates.add(2 * hidden), n), read::<S>(gates.add(3 * hidden), n));
                let (tanh_cell, dh) = (read::<S>(tanh_c.add(at), n), read::<S>(dh.add(at), n));
                let dcell = (dh * o).mul_add(one - tanh_cell * tanh_cell, read(dc.add(at), n));
                write(dcell * g * i * (one - i), dgates, n);
                write(dcell * read(c_prev.add(at), n) * f * (one - f), dgates.add(hidden), n);
                write(dcell * i * (one - g * g), dgates.add(2 * hidden), n);
                write(dh * tanh_cell * o * (one - o), dgates.add(3 * hidden), n);
                write(dcell * f, dc.add(at), n);
            }
        }
    }
}

/// See [`Real::lstm_cell_forward`](super::Real::lstm_cell_forward).
pub(crate) fn cell_forward(
    isa: Isa,
    m: usize,
    hidden: usize,
    gates: &mut [f32],
    c_prev: &[f32],
    c: &mut [f32],
    tanh_c: &mut [f32],
    h: &mut [f32],
) {
    let cells = m * hidden;
    assert!(gates.len() >= 4 * cells, "the gates are too short");
    assert!(c_prev.len() >= cells && c.len() >= cells && tanh_c.len() >= cells && h.len() >= cells, "too short");
    let (gates, c, tanh_c, h) = (gates.as_mut_ptr(), c.as_mut_ptr(), tanh_c.as_mut_ptr(), h.as_mut_ptr());
    // SAFETY: the lengths were just checked.
    unsafe { forward_entry(isa, m, hidden, gates, c_prev.as_ptr(), c, tanh_c, h) }
}

/// See [`Real::lstm_cell_backward`](super::Real::lstm_cell_backward).
pub(crate) fn cell_backward(
    isa: Isa,
    m: usize,
    hidden: usize,
    gates: &[f32],
    c_prev: &[f32],
    tanh_c: &[f32],
    dh: &[f32],
    dc: &mut [f32],
    dgates: &mut [f32],
) {
    let cells = m * hidden;
    assert!(gates.len() >= 4 * cells && dgates.len() >= 4 * cells, "the gates are too short");
    assert!(c_prev.len() >= cells && tanh_c.len() >= cells && dh.len() >= cells && dc.len() >= cells, "too short");
    let (c_prev, tanh_c, dh) = (c_prev.as_ptr(), tanh_c.as_ptr(), dh.as_ptr());
    // SAFETY: the lengths were just checked.
    unsafe { backward_entry(isa, m, hidden, gates.as_ptr(), c_prev, tanh_c, dh, dc.as_mut_ptr(), dgates.as_mut_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::testing::{close, filled, isas};
    use super::*;

    #[test]
    fn cells_agree_with_the_reference() {
        for isa in isas() {
            for (m, hidden) in [(1, 1), (3, 5), (2, 8), (5, 16), (4, 17), (3, 33), (16, 64), (2, 70)] {
                let n = m * hidden;
                let pre: Vec<f32> = filled(1, 4 * n).iter().map(|v| v * 6.0).collect();
                let (c_prev, dh, dc) = (filled(2, n), filled(3, n), filled(4, n));
                let run = |fast: bool| {
                    let (mut gates, mut out) = (pre.clone(), [(); 3].map(|_| vec![f32::NAN; n]));
                    let (mut dc, mut dgates) = (dc.clone(), vec![f32::NAN; 4 * n]);
                    let [c, tanh_c, h] = &mut out;
                    if fast {
                        cell_forward(isa, m, hidden, &mut gates, &c_prev, c, tanh_c, h);
                        cell_backward(isa, m, hidden, &gates, &c_prev, tanh_c, &dh, &mut dc, &mut dgates);
                    } else {
                        reference::lstm_cell_forward(m, hidden, &mut gates, &c_prev, c, tanh_c, h);
                        reference::lstm_cell_backward(m, hidden, &gates, &c_prev, tanh_c, &dh, &mut dc, &mut dgates);
                    }
                    [gates, out.concat(), dc, dgates]
                };
                for (got, expected) in run(true).iter().zip(&run(false)) {
                    close(got, expected, 5e-7, &(isa, m, hidden));
                }
            }
        }
    }
}
