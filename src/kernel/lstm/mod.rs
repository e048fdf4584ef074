//! One direction of an LSTM layer over a sequence, for f32. Equations as in torch.nn.LSTM.
//!
//! Inside, the gates i, f, g and o of [`GROUP`] units lie side by side, so that a register tile's columns are all that a
//! cell needs, and steps of the backward pass are gathered until their weight gradient is worth a tile's while.

mod cell;
mod layout;

pub use layout::Recurrence;

use super::tile::{OuterTile, ProductTile, TileInit};
use super::transpose::transpose_panels;
use super::{Isa, PANEL, bf16, panel_index};

/// Units whose gates lie side by side.
const GROUP: usize = 16;
/// Their gates: two panels.
const GATES: usize = 4 * GROUP;
/// Rows that a weight gradient takes at a time, or one step's if these are more.
const CHUNK_ROWS: usize = 64;
/// Rows of the largest tile of any instruction set.
const MAX_ROWS: usize = 14;

/// Weights and biases of one direction, as the arena has them.
#[derive(Debug, Clone, Copy)]
pub struct LstmWeights<'a, T> {
    /// Panels (inputs × 4H).
    pub ih: &'a [T],
    /// Panels (H × 4H).
    pub hh: &'a [T],
    /// 4H each.
    pub bias: Option<(&'a [T], &'a [T])>,
}

/// Their gradients, to be added to.
#[derive(Debug)]
pub struct LstmGradients<'a, T> {
    /// As [`LstmWeights::ih`].
    pub ih: &'a mut [T],
    /// As [`LstmWeights::hh`].
    pub hh: &'a mut [T],
    /// 4H each.
    pub bias: Option<(&'a mut [T], &'a mut [T])>,
}

/// Panels' rows `n` wide: `to[at to, k] += from[at from, k]` or `=` for the depths of `from` that go to `to` `depths`.
fn move_columns(
    add: bool,
    n: usize,
    depths: usize,
    from: &[f32],
    (from_depth, from_first, from_column): (usize, usize, usize),
    to: &mut [f32],
    (to_depth, to_first, to_column): (usize, usize, usize),
) {
    let from = &from[panel_index(from_depth, from_first, from_column)..];
    let to = &mut to[panel_index(to_depth, to_first, to_column)..];
    for k in 0..depths {
        let (from, to) = (&from[k * PANEL..][..n], &mut to[k * PANEL..][..n]);
        if let (Ok(from), Ok(to)) = (<&[f32; GROUP]>::try_from(from), <&mut [f32; GROUP]>::try_from(&mut *to)) {
            // The usual case, in vectors.
            for lane in 0..GROUP {
                to[lane] = if add { to[lane] + from[lane] } else { from[lane] };
            }
        } else {
            for (to, from) in to.iter_mut().zip(from) {
                *to = if add { *to + *from } else { *from };
            }
        }
    }
}

/// See [`Real::lstm_prepare`](super::Real::lstm_prepare).
pub(crate) fn prepare(isa: Isa, r: &Recurrence, weights: &LstmWeights<'_, f32>, packed: &mut [f32]) {
    let at = r.packed();
    let (k, n) = (r.depth(), r.columns());
    let ranges = [at.bias, at.panels, at.transposed, at.pairs];
    let [bias, panels, transposed, pairs] = packed.get_disjoint_mut(ranges).expect("planned ranges are disjoint");
    // Columns of units that do not exist stay zero: the workspace starts so.
    r.for_each_stretch(|to, from, width| {
        if let Some((ih, hh)) = weights.bias {
            for lane in 0..width {
                bias[to + lane] = ih[from + lane] + hh[from + lane];
            }
        }
        move_columns(false, width, r.hidden, weights.hh, (r.hidden, 0, from), panels, (k, 0, to));
        move_columns(false, width, r.inputs, weights.ih, (r.inputs, 0, from), panels, (k, r.hidden, to));
    });
    if r.bf16 {
        bf16::pack(isa, k, n, panels, pairs, transposed);
    } else {
        transpose_panels(isa, k, n, panels, transposed);
    }
}

/// See [`Real::lstm_forward`](super::Real::lstm_forward).
pub(crate) fn forward(
    isa: Isa,
    r: &Recurrence,
    m: usize,
    packed: &[f32],
    z: &mut [f32],
    cache: &mut [f32],
    scratch: &mut [f32],
) {
    let (k, row_len, tiles) = (r.depth(), r.row_len(), r.tiles(isa));
    let (elements, at) = (r.elements(k), r.packed());
    let (bias, panels) = (&packed[at.bias], &packed[if r.bf16 { at.pairs } else { at.panels }]);
    let at = r.cache(m);
    let ranges = [at.gates, at.c, at.tanh_c];
    let [gates, c, tanh_c] = cache.get_disjoint_mut(ranges).expect("planned ranges are disjoint");
    let pairs = &mut scratch[r.scratch(m).pairs_a];
    c[..r.groups() * m * GROUP].fill(0.0);
    for row in z.chunks_exact_mut(row_len).take(m) {
        row[..r.hidden].fill(0.0);
    }
    let mut sums = [0.0; MAX_ROWS * GATES];
    for step in 0..r.steps {
        let (now, next) = z[step * m * row_len..][..2 * m * row_len].split_at_mut(m * row_len);
        let (a, a_row) = if r.bf16 {
            bf16::pair_neighbours(m, k, now, row_len, pairs);
            (&*pairs, elements)
        } else {
            (&*now, row_len)
        };
        // The hidden state before the first step is zero.
        let skip = if step > 0 { 0 } else { r.hidden / if r.bf16 { 2 } else { 1 } };
        // By group, so that its two panels stay in L1 for all rows.
        for group in 0..r.groups() {
            let units = GROUP.min(r.hidden - group * GROUP);
            tiles.split(m, |first, rows| {
                for col in (0..GATES).step_by(tiles.width()) {
                    let tile = ProductTile {
                        segments: 1,
                        length: elements - skip,
                        a: a[first * a_row + skip..].as_ptr(),
                        a_row,
                        a_segment: 0,
                        b: panels[panel_index(elements, skip, group * GATES + col)..].as_ptr(),
                        init: TileInit::Bias(bias[group * GATES + col..].as_ptr()),
                        c: sums[col..].as_mut_ptr(),
                        c_row: GATES,
                        columns: tiles.width(),
                        // What is at hand anyway.
                        ahead: panels.as_ptr(),
                        ahead_segment: 0,
                    };
                    // SAFETY: `rows` rows of A from row `first` of `m`, a panel of the packed weights, its bias, and
                    // MAX_ROWS rows of sums.
                    unsafe { tiles.product(rows, &tile) };
                }
                let cells = (step * r.groups() + group) * m + first;
                let h = &mut next[first * row_len + group * GROUP..];
                let after = cells + r.groups() * m;
                let (c_prev, c) = c.split_at_mut(after * GROUP);
                cell::forward(
                    isa,
                    rows,
                    units,
                    &sums,
                    &mut gates[cells * GATES..],
                    &c_prev[cells * GROUP..],
                    c,
                    &mut tanh_c[cells * GROUP..],
                    h,
                    row_len,
                );
            });
        }
    }
}

/// See [`Real::lstm_backward`](super::Real::lstm_backward).
pub(crate) fn backward(
    isa: Isa,
    r: &Recurrence,
    m: usize,
    packed: &[f32],
    z: &[f32],
    cache: &[f32],
    dy: &[f32],
    mut dx: Option<&mut [f32]>,
    gradients: LstmGradients<'_, f32>,
    scratch: &mut [f32],
) {
    let (k, n, row_len, groups, tiles) = (r.depth(), r.columns(), r.row_len(), r.groups(), r.tiles(isa));
    let transposed = &packed[r.packed().transposed];
    let at = r.cache(m);
    let (gates, c, tanh_c) = (&cache[at.gates], &cache[at.c], &cache[at.tanh_c]);
    let at = r.scratch(m);
    let ranges = [at.dgates, at.dc, at.dz, at.dpanels, at.dbias, at.pairs_a, at.pairs_b];
    let [dgates, dc, dz, dpanels, dbias, pairs_a, pairs_b] =
        scratch.get_disjoint_mut(ranges).expect("planned ranges are disjoint");
    for zero in [&mut *dc, dz, dpanels, dbias] {
        zero.fill(0.0);
    }
    let chunk = r.chunk(m);
    // Rows of A, and of a group of it, in the data gradient's product.
    let (length, chunk_rows) = (r.elements(GATES), chunk * m);
    let wanted = if dx.is_some() { k } else { r.hidden };
    for step in (0..r.steps).rev() {
        let (time, slot) = (r.time(step), step % chunk);
        for group in 0..groups {
            let cells = (step * groups + group) * m;
            cell::backward(
                isa,
                m,
                GROUP.min(r.hidden - group * GROUP),
                &gates[cells * GATES..],
                &c[cells * GROUP..],
                &tanh_c[cells * GROUP..],
                (&dz[group * GROUP..], row_len),
                (&dy[time * m * r.width + r.column() + group * GROUP..], r.width),
                &mut dc[group * m * GROUP..],
                &mut dgates[(group * chunk_rows + slot * m) * GATES..],
                &mut dbias[group * GATES..],
            );
        }
        let (a, a_segment) = if r.bf16 {
            for group in 0..groups {
                let from = &dgates[(group * chunk_rows + slot * m) * GATES..];
                bf16::pair_neighbours(m, GATES, from, GATES, &mut pairs_b[group * m * length..]);
            }
            (&*pairs_b, m * length)
        } else {
            (&dgates[slot * m * GATES..], chunk_rows * GATES)
        };
        // Nobody wants the gradient of the hidden state before the first step.
        let unwanted = if step > 0 { 0 } else { r.hidden / tiles.width() * tiles.width() };
        for col in (unwanted..wanted).step_by(tiles.width()) {
            tiles.split(m, |first, rows| {
                let tile = ProductTile {
                    segments: groups,
                    length,
                    a: a[first * length..].as_ptr(),
                    a_row: length,
                    a_segment,
                    b: transposed[panel_index(groups * length, 0, col)..].as_ptr(),
                    init: TileInit::Zero,
                    c: dz[first * row_len + col..].as_mut_ptr(),
                    c_row: row_len,
                    columns: tiles.width().min(wanted - col),
                    ahead: transposed.as_ptr(),
                    ahead_segment: 0,
                };
                // SAFETY: `rows` rows of each group's A from row `first` of `m`, a panel of the packed transpose, and
                // `rows` rows of dz.
                unsafe { tiles.product(rows, &tile) };
            });
        }
        if let Some(dx) = &mut dx {
            let rows = dx[time * m * r.inputs..].chunks_exact_mut(r.inputs);
            for (to, from) in rows.zip(dz.chunks_exact(row_len)).take(m) {
                let from = &from[r.hidden..][..r.inputs];
                if r.reverse {
                    for (to, from) in to.iter_mut().zip(from) {
                        *to += *from;
                    }
                } else {
                    to.copy_from_slice(from);
                }
            }
        }
        if slot == 0 {
            let rows = chunk.min(r.steps - step) * m;
            let (mut a, mut a_row, mut b, mut b_group) = (&z[step * m * row_len..], row_len, &*dgates, chunk_rows);
            let mut pixels = rows;
            if r.bf16 {
                pixels = rows.div_ceil(2);
                bf16::pair_rows(rows, k, a, row_len, pairs_a);
                for group in 0..groups {
                    let from = &dgates[group * chunk_rows * GATES..];
                    bf16::pair_rows(rows, GATES, from, GATES, &mut pairs_b[group * pixels * GATES..][..pixels * GATES]);
                }
                (a, a_row, b, b_group) = (&*pairs_a, k, &*pairs_b, pixels);
            }
            for col in (0..n).step_by(tiles.width()) {
                tiles.split(k, |first, height| {
                    let tile = OuterTile {
                        rows: 1,
                        cols: pixels,
                        a: a[first..].as_ptr(),
                        offsets: None,
                        a_row: 0,
                        a_col: a_row,
                        b: b[col / GATES * b_group * GATES + col % GATES..].as_ptr(),
                        b_row: 0,
                        b_col: GATES,
                        ahead: std::ptr::null(),
                        more: 0,
                        add: true,
                        c: dpanels[panel_index(k, first, col)..].as_mut_ptr(),
                        columns: tiles.width(),
                    };
                    // SAFETY: `pixels` rows of A (k elements from 0) and of a group's B, and `height` rows of a panel.
                    unsafe { tiles.outer(height, &tile) };
                });
            }
        }
    }
    let LstmGradients { ih, hh, mut bias } = gradients;
    r.for_each_stretch(|from, to, width| {
        if let Some((ih, hh)) = &mut bias {
            for lane in 0..width {
                ih[to + lane] += dbias[from + lane];
                hh[to + lane] += dbias[from + lane];
            }
        }
        move_columns(true, width, r.hidden, dpanels, (k, 0, from), hh, (r.hidden, 0, to));
        move_columns(true, width, r.inputs, dpanels, (k, r.hidden, from), ih, (r.inputs, 0, to));
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, filled, isas};
    use super::super::{panels_len, reference};
    use super::*;

    /// What both passes give: hidden states, and gradients of the input, the weights and the biases.
    fn passes(isa: Option<Isa>, r: &Recurrence, m: usize, want_dx: bool) -> [Vec<f32>; 6] {
        let n = 4 * r.hidden;
        let panels = |seed, k: usize| {
            let mut panels = vec![0.0; panels_len(k, n)];
            // Small, so that a sequence does not magnify bf16's rounding.
            let weight: Vec<f32> = filled(seed, k * n).iter().map(|v| 0.2 * v).collect();
            crate::kernel::product::pack(k, n, &weight, n, 1, &mut panels);
            panels
        };
        let (ih, hh, bias) = (panels(1, r.inputs), panels(2, r.hidden), (filled(3, n), filled(4, n)));
        let weights = LstmWeights { ih: &ih, hh: &hh, bias: Some((&bias.0, &bias.1)) };
        let (mut packed, mut z) = (vec![0.0; r.packed_len()], filled(5, r.rows_len(m)));
        let (mut cache, mut scratch) = (vec![f32::NAN; r.cache_len(m + 2)], vec![f32::NAN; r.scratch_len(m + 2)]);
        let dy = filled(6, r.steps * m * r.width);
        let mut dx = filled(7, r.steps * m * r.inputs);
        let (mut dih, mut dhh, mut db) = (filled(8, ih.len()), filled(9, hh.len()), (filled(10, n), filled(11, n)));
        let gradients = LstmGradients { ih: &mut dih, hh: &mut dhh, bias: Some((&mut db.0, &mut db.1)) };
        let wanted = want_dx.then_some(&mut dx[..]);
        if let Some(isa) = isa {
            prepare(isa, r, &weights, &mut packed);
            forward(isa, r, m, &packed, &mut z, &mut cache, &mut scratch);
            backward(isa, r, m, &packed, &z, &cache, &dy, wanted, gradients, &mut scratch);
        } else {
            reference::lstm_forward(r, m, &weights, &mut z, &mut cache);
            reference::lstm_backward(r, m, &weights, &z, &cache, &dy, wanted, gradients);
        }
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
            for reverse in [false, true] {
                let width = if reverse { 2 * hidden } else { hidden + case % 2 };
                let r = Recurrence { steps, inputs, hidden, reverse, width, bf16: false };
                let want_dx = case % 3 != 1;
                let expected = passes(None, &r, m, want_dx);
                for isa in isas() {
                    for (at, (got, expected)) in passes(Some(isa), &r, m, want_dx).iter().zip(&expected).enumerate() {
                        close(got, expected, 5e-6, &(isa, r, m, at));
                    }
                    let rounded = passes(Some(isa), &Recurrence { bf16: true, ..r }, m, want_dx);
                    for (at, (got, expected)) in rounded.iter().zip(&expected).enumerate() {
                        close(got, expected, 2e-2, &(isa, r, m, at, "bf16"));
                    }
                }
            }
        }
    }
}
