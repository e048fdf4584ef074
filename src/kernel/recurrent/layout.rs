//! Sizes of one direction of a recurrent layer, and where its things lie in the buffers.

use super::{CHUNK_ROWS, CellKind, GATES, GROUP, rounds};
use crate::kernel::product::bf16;
use crate::kernel::product::tile::Tiles;
use crate::kernel::{Isa, PANEL, Precision, panels_len};
use std::ops::Range;

/// One direction of a recurrent layer over a sequence. Its inputs and hidden states lie as rows (h_{t-1}, x_t), M a step,
/// in the order in which the direction goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recurrence {
    /// What it computes in a step.
    pub kind: CellKind,
    /// T.
    pub steps: usize,
    /// Elements of x_t.
    pub inputs: usize,
    /// H: elements of h_t.
    pub hidden: usize,
    /// Whether it goes from the last time to the first.
    pub reverse: bool,
    /// Hidden states side by side in the layer's output: H, or 2H with both directions.
    pub width: usize,
    /// What f32 is multiplied in.
    pub precision: Precision,
}

/// Columns that lie together.
pub(super) struct Stretch {
    /// The first, where the input's weights are packed.
    pub ih: usize,
    /// The first, where the hidden state's are.
    pub hh: usize,
    /// The first in the arena.
    pub column: usize,
    /// How many.
    pub width: usize,
}

/// Takes consecutive aligned ranges.
fn take(total: &mut usize, len: usize) -> Range<usize> {
    let start = *total;
    *total = (start + len).next_multiple_of(16);
    start..start + len
}

/// Where things lie in `packed`.
pub(super) struct Packed {
    /// The sum of what b_ih and b_hh give each column, by group.
    pub bias: Range<usize>,
    /// The weights (K × columns by group) as panels of f32.
    pub panels: Range<usize>,
    /// Their transpose, for the data gradient; in bf16 as pairs.
    pub transposed: Range<usize>,
    /// In bf16: the weights as pairs.
    pub pairs: Range<usize>,
    pub len: usize,
}

/// Where things lie in the cache of `m` samples: all as `[step][group][sample]`.
pub(super) struct Cache {
    /// Activated gates: [`GATES`] each.
    pub gates: Range<usize>,
    /// States (c of an LSTM, h of a GRU) from zero on: [`GROUP`] each, of one step more.
    pub state: Range<usize>,
    /// tanh of an LSTM's states: [`GROUP`] each.
    pub tanh: Range<usize>,
    pub len: usize,
}

/// Where things lie in the scratch for `m` samples.
pub(super) struct Scratch {
    /// Gradients of gates: `[group][row of the chunk]`, [`GATES`] each.
    pub dgates: Range<usize>,
    /// Of states, past the gates: `[group][sample]`, [`GROUP`] each.
    pub carried: Range<usize>,
    /// Of a step's rows (h, x).
    pub dz: Range<usize>,
    /// Of the packed weights.
    pub dpanels: Range<usize>,
    /// Of the packed bias.
    pub dbias: Range<usize>,
    /// In bf16: pairs of A and of B.
    pub pairs_a: Range<usize>,
    pub pairs_b: Range<usize>,
    pub len: usize,
}

impl Recurrence {
    pub(super) fn groups(&self) -> usize {
        self.hidden.div_ceil(GROUP)
    }

    /// Columns of the packed weights.
    pub(super) fn columns(&self) -> usize {
        self.groups() * GATES
    }

    /// K: elements of a row (h, x).
    pub(super) fn depth(&self) -> usize {
        self.hidden + self.inputs
    }

    /// Steps whose weight gradient is taken at once.
    pub(super) fn chunk(&self, m: usize) -> usize {
        (CHUNK_ROWS / m).clamp(1, self.steps)
    }

    pub(super) fn packed(&self) -> Packed {
        let (mut len, k, n) = (0, self.depth(), self.columns());
        let (bias, panels) = (take(&mut len, n), take(&mut len, panels_len(k, n)));
        let transposed = take(&mut len, panels_len(n, k));
        let pairs = take(&mut len, if rounds(self.precision) { bf16::pairs_len(k, n) } else { 0 });
        Packed { bias, panels, transposed, pairs, len }
    }

    pub(super) fn cache(&self, m: usize) -> Cache {
        let (mut len, cells) = (0, self.groups() * m);
        let gates = take(&mut len, self.steps * cells * GATES);
        let state = take(&mut len, (self.steps + 1) * cells * GROUP);
        let tanh = take(&mut len, if self.kind == CellKind::Lstm { self.steps * cells * GROUP } else { 0 });
        Cache { gates, state, tanh, len }
    }

    pub(super) fn scratch(&self, m: usize) -> Scratch {
        let (mut len, k, n, rows) = (0, self.depth(), self.columns(), self.chunk(m) * m);
        let dgates = take(&mut len, rows * n);
        let carried = take(&mut len, self.groups() * m * GROUP);
        let dz = take(&mut len, m * self.row_len());
        let (dpanels, dbias) = (take(&mut len, panels_len(k, n)), take(&mut len, n));
        let pairs_a = take(&mut len, if rounds(self.precision) { rows.div_ceil(2).max(m) * k } else { 0 });
        let pairs_b = take(&mut len, if rounds(self.precision) { rows.div_ceil(2).max(m) * n } else { 0 });
        Scratch { dgates, carried, dz, dpanels, dbias, pairs_a, pairs_b, len }
    }

    /// Elements of a row (h_{t-1}, x_t) with its padding.
    pub fn row_len(&self) -> usize {
        let len = self.depth().next_multiple_of(16);
        // Rows 4 KiB apart share one set of L1.
        if len.is_multiple_of(1024) { len + 16 } else { len }
    }

    /// Elements of the rows of all steps and of the last hidden state behind them.
    pub fn rows_len(&self, m: usize) -> usize {
        (self.steps + 1) * m * self.row_len()
    }

    /// Elements of weights packed once a step.
    pub fn packed_len(&self) -> usize {
        self.packed().len
    }

    /// Elements kept from forward to backward, for `m` samples at most.
    pub fn cache_len(&self, m: usize) -> usize {
        self.cache(m).len
    }

    /// Elements of scratch, for `m` samples at most.
    pub fn scratch_len(&self, m: usize) -> usize {
        // Chunks of fewer samples have more steps, but no more rows than this.
        self.scratch(m).len.max((1..m).map(|m| self.scratch(m).len).max().unwrap_or(0))
    }

    /// The time at a step of this direction.
    pub fn time(&self, step: usize) -> usize {
        if self.reverse { self.steps - 1 - step } else { step }
    }

    /// The first of this direction's columns among the hidden states of all.
    pub fn column(&self) -> usize {
        if self.reverse { self.hidden } else { 0 }
    }

    pub(super) fn tiles(&self, isa: Isa) -> &'static Tiles {
        if rounds(self.precision) { Tiles::of_bf16(isa) } else { Tiles::of(isa) }
    }

    /// Elements that `k` numbers take along the depth of a product.
    pub(super) fn elements(&self, k: usize) -> usize {
        if rounds(self.precision) { k.div_ceil(2) } else { k }
    }

    /// The block of a group's columns where a gate's weights go: those of the input and those of the hidden state.
    fn blocks(&self, gate: usize) -> (usize, usize) {
        match (self.kind, gate) {
            // A GRU's reset gate stands between the two.
            (CellKind::Gru, 2) => (3, 2),
            _ => (gate, gate),
        }
    }

    /// Visits stretches of columns that lie together as packed and in the arena.
    pub(super) fn for_each_stretch(&self, mut visit: impl FnMut(Stretch)) {
        for column in 0..self.kind.gates() * self.hidden {
            let unit = column % self.hidden;
            if unit.is_multiple_of(GROUP) || column.is_multiple_of(PANEL) {
                let (ih, hh) = self.blocks(column / self.hidden);
                let width = (GROUP - unit % GROUP).min(self.hidden - unit).min(PANEL - column % PANEL);
                let [ih, hh] = [ih, hh].map(|block| unit / GROUP * GATES + block * GROUP + unit % GROUP);
                visit(Stretch { ih, hh, column, width });
            }
        }
    }
}
