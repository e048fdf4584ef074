//! The steps of a sequence, for f32.
//!
//! Inside, the gates of [`GROUP`] units lie side by side, so that a register tile's columns are all that a cell needs, and
//! steps of the backward pass are gathered until their weight gradient is worth a tile's while.

use super::cell;
use super::layout::Stretch;
use super::{Cell, CellGradients, CellWeights, GATES, GROUP, Kept, Recurrence, rounds};
use crate::kernel::product::bf16;
use crate::kernel::product::tile::{OuterTile, ProductTile, TileInit};
use crate::kernel::transpose::transpose_panels;
use crate::kernel::view::{rows, rows_apart, rows_apart_mut};
use crate::kernel::{Isa, PANEL, panel_index};
use ndarray::{ArrayView3, ArrayViewMut3};

/// Rows of the largest tile of any instruction set.
const MAX_ROWS: usize = 14;

/// A direction, planned for an instruction set.
pub(super) struct Sequence {
    pub isa: Isa,
    pub recurrence: Recurrence,
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

impl Cell<f32> for Sequence {
    fn method(&self) -> &'static str {
        match (rounds(self.recurrence.precision), bf16::native()) {
            (false, _) => "f32 tiles",
            (true, true) => "bf16 pairs",
            (true, false) => "bf16 pairs, emulated",
        }
    }

    fn prepare(&self, weights: CellWeights<'_, f32>, packed: &mut [f32]) {
        let r = &self.recurrence;
        let at = r.packed();
        let (k, n) = (r.depth(), r.columns());
        let ranges = [at.bias, at.panels, at.transposed, at.pairs];
        let [bias, panels, transposed, pairs] = packed.get_disjoint_mut(ranges).expect("planned ranges are disjoint");
        if weights.bias.is_some() {
            bias.fill(0.0);
        }
        // Columns of units that do not exist, and of gates that one of the two does not feed, stay zero: the workspace starts so.
        r.for_each_stretch(|Stretch { ih, hh, column, width }| {
            if let Some((bias_ih, bias_hh)) = weights.bias {
                for lane in 0..width {
                    bias[ih + lane] += bias_ih[column + lane];
                    bias[hh + lane] += bias_hh[column + lane];
                }
            }
            move_columns(false, width, r.hidden, weights.hh, (r.hidden, 0, column), panels, (k, 0, hh));
            move_columns(false, width, r.inputs, weights.ih, (r.inputs, 0, column), panels, (k, r.hidden, ih));
        });
        if rounds(r.precision) {
            bf16::pack(self.isa, k, n, panels, pairs, transposed);
        } else {
            transpose_panels(self.isa, k, n, panels, transposed);
        }
    }

    fn forward(
        &self,
        weights: CellWeights<'_, f32>,
        mut row_view: ArrayViewMut3<'_, f32>,
        cache: &mut [f32],
        scratch: &mut [f32],
    ) {
        let (isa, r, m) = (self.isa, &self.recurrence, row_view.dim().1);
        let (k, row_len, tiles) = (r.depth(), r.row_len(), r.tiles(isa));
        assert!(row_view.dim() == (r.steps + 1, m, row_len), "the rows have another shape");
        let z = row_view.as_slice_mut().expect("rows lie dense");
        let (elements, at) = (r.elements(k), r.packed());
        let (bias, panels) =
            (&weights.packed[at.bias], &weights.packed[if rounds(r.precision) { at.pairs } else { at.panels }]);
        let at = r.cache(m);
        let ranges = [at.gates, at.state, at.tanh];
        let [gates, state, tanh] = cache.get_disjoint_mut(ranges).expect("planned ranges are disjoint");
        let pairs = &mut scratch[r.scratch(m).pairs_a];
        state[..r.groups() * m * GROUP].fill(0.0);
        for row in z.chunks_exact_mut(row_len).take(m) {
            row[..r.hidden].fill(0.0);
        }
        let mut sums = [0.0; MAX_ROWS * GATES];
        for step in 0..r.steps {
            let (now, next) = z[step * m * row_len..][..2 * m * row_len].split_at_mut(m * row_len);
            let (a, a_row) = if rounds(r.precision) {
                bf16::pair_neighbours(rows_apart(m, k, row_len, now), pairs);
                (&*pairs, elements)
            } else {
                (&*now, row_len)
            };
            // The hidden state before the first step is zero.
            let skip = if step > 0 { 0 } else { r.hidden / if rounds(r.precision) { 2 } else { 1 } };
            // By group, so that its two panels stay in L1 for all rows.
            for group in 0..r.groups() {
                let units = GROUP.min(r.hidden - group * GROUP);
                tiles.split(m, |first, height| {
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
                        // SAFETY: `height` rows of A from row `first` of `m`, a panel of the packed weights, its bias, and
                        // MAX_ROWS rows of sums.
                        unsafe { tiles.product(height, &tile) };
                    }
                    let cells = (step * r.groups() + group) * m + first;
                    let (before, after) = state.split_at_mut((cells + r.groups() * m) * GROUP);
                    let kept = cell::Kept {
                        gates: &mut gates[cells * GATES..],
                        before: &before[cells * GROUP..],
                        after,
                        // Empty for a GRU.
                        tanh: tanh.get_mut(cells * GROUP..).unwrap_or_default(),
                    };
                    let h = &mut next[first * row_len + group * GROUP..];
                    cell::forward(isa, r.kind, &sums, kept, rows_apart_mut(height, units, row_len, h));
                });
            }
        }
    }

    fn backward(
        &self,
        weights: CellWeights<'_, f32>,
        kept: Kept<'_, f32>,
        dy: ArrayView3<'_, f32>,
        mut dx: Option<ArrayViewMut3<'_, f32>>,
        gradients: CellGradients<'_, f32>,
        scratch: &mut [f32],
    ) {
        let (isa, r, m) = (self.isa, &self.recurrence, dy.dim().1);
        let (k, n, row_len, groups, tiles) = (r.depth(), r.columns(), r.row_len(), r.groups(), r.tiles(isa));
        assert!(kept.rows.dim() == (r.steps + 1, m, row_len), "the rows have another shape");
        assert!(dy.dim() == (r.steps, m, r.width), "dy has another shape");
        assert!(dx.as_ref().is_none_or(|dx| dx.dim() == (r.steps, m, r.inputs)), "dx has another shape");
        let [z, dy] = [kept.rows, dy].map(|view| view.to_slice().expect("rows lie dense"));
        let mut dx = dx.as_mut().map(|dx| dx.as_slice_mut().expect("rows lie dense"));
        let (transposed, cache) = (&weights.packed[r.packed().transposed], kept.cache);
        let at = r.cache(m);
        let (gates, state, tanh) = (&cache[at.gates], &cache[at.state], &cache[at.tanh]);
        let at = r.scratch(m);
        let ranges = [at.dgates, at.carried, at.dz, at.dpanels, at.dbias, at.pairs_a, at.pairs_b];
        let [dgates, carried, dz, dpanels, dbias, pairs_a, pairs_b] =
            scratch.get_disjoint_mut(ranges).expect("planned ranges are disjoint");
        for zero in [&mut *carried, dz, dpanels, dbias] {
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
                let units = GROUP.min(r.hidden - group * GROUP);
                let seen = cell::Seen {
                    gates: &gates[cells * GATES..],
                    before: &state[cells * GROUP..],
                    // Empty for a GRU.
                    tanh: tanh.get(cells * GROUP..).unwrap_or_default(),
                };
                let left = cell::Left {
                    carried: &mut carried[group * m * GROUP..],
                    dgates: &mut dgates[(group * chunk_rows + slot * m) * GATES..],
                    dbias: &mut dbias[group * GATES..],
                };
                let dy = &dy[time * m * r.width + r.column() + group * GROUP..];
                let dz = rows_apart(m, units, row_len, &dz[group * GROUP..]);
                cell::backward(isa, r.kind, seen, dz, rows_apart(m, units, r.width, dy), left);
            }
            let (a, a_segment) = if rounds(r.precision) {
                for group in 0..groups {
                    let from = &dgates[(group * chunk_rows + slot * m) * GATES..];
                    bf16::pair_neighbours(rows(m, GATES, from), &mut pairs_b[group * m * length..]);
                }
                (&*pairs_b, m * length)
            } else {
                (&dgates[slot * m * GATES..], chunk_rows * GATES)
            };
            // Nobody wants the gradient of the hidden state before the first step.
            let unwanted = if step > 0 { 0 } else { r.hidden / tiles.width() * tiles.width() };
            for col in (unwanted..wanted).step_by(tiles.width()) {
                tiles.split(m, |first, height| {
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
                    // SAFETY: `height` rows of each group's A from row `first` of `m`, a panel of the packed transpose, and
                    // as many rows of dz.
                    unsafe { tiles.product(height, &tile) };
                });
            }
            if let Some(dx) = &mut dx {
                let dx = dx[time * m * r.inputs..].chunks_exact_mut(r.inputs);
                for (to, from) in dx.zip(dz.chunks_exact(row_len)).take(m) {
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
                let count = chunk.min(r.steps - step) * m;
                let (mut a, mut a_row, mut b, mut b_group) = (&z[step * m * row_len..], row_len, &*dgates, chunk_rows);
                let mut pixels = count;
                if rounds(r.precision) {
                    pixels = count.div_ceil(2);
                    bf16::pair_rows(rows_apart(count, k, row_len, a), pairs_a);
                    for group in 0..groups {
                        let from = &dgates[group * chunk_rows * GATES..];
                        let to = &mut pairs_b[group * pixels * GATES..][..pixels * GATES];
                        bf16::pair_rows(rows(count, GATES, from), to);
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
        let mut into = gradients;
        r.for_each_stretch(|Stretch { ih, hh, column, width }| {
            if let Some((bias_ih, bias_hh)) = &mut into.bias {
                for lane in 0..width {
                    bias_ih[column + lane] += dbias[ih + lane];
                    bias_hh[column + lane] += dbias[hh + lane];
                }
            }
            move_columns(true, width, r.hidden, dpanels, (k, 0, hh), into.hh, (r.hidden, 0, column));
            move_columns(true, width, r.inputs, dpanels, (k, r.hidden, ih), into.ih, (r.inputs, 0, column));
        });
    }
}
