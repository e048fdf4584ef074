//! Cells against the reference.

use super::*;
use crate::kernel::testing::{close, filled, isas};
use crate::kernel::view::{rows, sequences, sequences_mut};
use crate::kernel::{panel, panels_len, reference};

/// What both passes give: hidden states, and gradients of the input, the weights and the biases.
fn passes(isa: Option<Isa>, r: &Recurrence, m: usize, want_dx: bool) -> [Vec<f32>; 6] {
    let n = r.kind.gates() * r.hidden;
    let panels = |seed, k: usize| {
        let mut panels = vec![0.0; panels_len(k, n)];
        // Small, so that a sequence does not magnify bf16's rounding.
        let weight: Vec<f32> = filled(seed, k * n).iter().map(|v| 0.2 * v).collect();
        panel::pack(rows(k, n, &weight), &mut panels);
        panels
    };
    let (ih, hh, bias) = (panels(1, r.inputs), panels(2, r.hidden), (filled(3, n), filled(4, n)));
    let (mut packed, mut z) = (vec![0.0; r.packed_len()], filled(5, r.rows_len(m)));
    let (mut cache, mut scratch) = (vec![f32::NAN; r.cache_len(m + 2)], vec![f32::NAN; r.scratch_len(m + 2)]);
    let dy = filled(6, r.steps * m * r.width);
    let mut dx = filled(7, r.steps * m * r.inputs);
    let (mut dih, mut dhh, mut db) = (filled(8, ih.len()), filled(9, hh.len()), (filled(10, n), filled(11, n)));
    let gradients = CellGradients { ih: &mut dih, hh: &mut dhh, bias: Some((&mut db.0, &mut db.1)) };
    let cell = match isa {
        Some(isa) => plan(isa, *r),
        None => reference::cell_plan(*r),
    };
    let bias = Some((&bias.0[..], &bias.1[..]));
    cell.prepare(CellWeights { ih: &ih, hh: &hh, bias, packed: &[] }, &mut packed);
    let weights = CellWeights { ih: &ih, hh: &hh, bias, packed: &packed };
    cell.forward(weights, sequences_mut(r.steps + 1, m, r.row_len(), &mut z), &mut cache, &mut scratch);
    let kept = Kept { rows: sequences(r.steps + 1, m, r.row_len(), &z), cache: &cache };
    let dy = sequences(r.steps, m, r.width, &dy);
    let wanted = want_dx.then(|| sequences_mut(r.steps, m, r.inputs, &mut dx));
    cell.backward(weights, kept, dy, wanted, gradients, &mut scratch);
    let rows = z.chunks_exact(r.row_len()).take((r.steps + 1) * m);
    [rows.flat_map(|row| row[..r.hidden].to_vec()).collect(), dx, dih, dhh, db.0, db.1]
}

#[test]
fn sequences_agree_with_the_reference() {
    for (case, &(steps, m, inputs, hidden)) in [
        (1, 1, 1, 1),
        (3, 2, 1, 3),
        (7, 3, 5, 8),
        (9, 16, 4, 16),
        (5, 13, 17, 17),
        (6, 15, 33, 40),
        (11, 16, 64, 64),
        (2, 70, 3, 70),
        (3, 20, 40, 24),
    ]
    .iter()
    .enumerate()
    {
        for (kind, reverse) in
            [(CellKind::Lstm, false), (CellKind::Lstm, true), (CellKind::Gru, false), (CellKind::Gru, true)]
        {
            let width = if reverse { 2 * hidden } else { hidden + case % 2 };
            let precision = Precision::F32;
            let r = Recurrence { kind, steps, inputs, hidden, reverse, width, precision };
            let want_dx = case % 3 != 1;
            let expected = passes(None, &r, m, want_dx);
            for isa in isas() {
                for (at, (got, expected)) in passes(Some(isa), &r, m, want_dx).iter().zip(&expected).enumerate() {
                    close(got, expected, 5e-6, &(isa, r, m, at));
                }
                let rounded = passes(Some(isa), &Recurrence { precision: Precision::Bf16, ..r }, m, want_dx);
                for (at, (got, expected)) in rounded.iter().zip(&expected).enumerate() {
                    close(got, expected, 2e-2, &(isa, r, m, at, "bf16"));
                }
            }
        }
    }
}
