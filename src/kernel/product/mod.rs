//! Products of a linear map y = x·W + b, W (K, N), of M rows at a time: planned once.
//!
//! A method is a file and an arm in [`plan`]; layers see [`Product`] only.

pub(super) mod bf16;
mod column;
mod outer;
pub(super) mod pays;
pub(super) mod tile;
pub(super) mod tiled;
pub(super) mod transposed;

use super::column_sum::column_sums;
use super::transpose::transpose_panels;
use super::view::{Rows, RowsMut};
use super::{Isa, Needs, Precision, Real, Weight, panels_len};

/// The sizes of a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearMap {
    /// M: most rows of a pass.
    pub rows: usize,
    /// K.
    pub inputs: usize,
    /// N.
    pub outputs: usize,
}

/// The products of a planned linear map.
///
/// # Panics
/// All of it, where views are not of the planned K and N.
pub trait Product<T: Real>: Send {
    /// How it multiplies, for people.
    fn method(&self) -> &'static str;
    /// Sizes of the buffers it is given.
    fn needs(&self) -> Needs;
    /// Whether a [`Product::weight_gradient`] adds to each element once, the whole sum of the planned rows.
    fn adds_once(&self) -> bool;
    /// Once a step: the weights `panels` in the forms that the passes want.
    fn prepare(&self, _panels: &[T], _packed: &mut [T]) {}
    /// y(M, N) = x(M, K)·W + b.
    fn forward(&self, x: Rows<'_, T>, weight: Weight<'_, T>, bias: Option<&[T]>, y: RowsMut<'_, T>, scratch: &mut [T]);
    /// dx(M, K) = dy(M, N)·Wᵀ.
    fn data_gradient(&self, dy: Rows<'_, T>, weight: Weight<'_, T>, dx: RowsMut<'_, T>, scratch: &mut [T]);
    /// dW = xᵀ·dy as panels, or += where `add`.
    fn weight_gradient(&self, x: Rows<'_, T>, dy: Rows<'_, T>, add: bool, dpanels: &mut [T], scratch: &mut [T]);
    /// db(N) = the column sums of dy, or += where `add`.
    fn bias_gradient(&self, dy: Rows<'_, T>, add: bool, dbias: &mut [T]);
}

/// The fastest way to multiply f32 on an instruction set.
pub(super) fn plan(isa: Isa, map: LinearMap, precision: Precision) -> Box<dyn Product<f32>> {
    match precision {
        Precision::Bf16 if pays::worth_packing(map) => Box::new(Pairs { isa, map }),
        Precision::F32 | Precision::Bf16 => Box::new(Tiled { isa, map }),
    }
}

/// Weights up to this many elements are transposed once a step for dx; larger ones are read as they lie, since every rank
/// would transpose all of them, and memory would be the limit.
const SMALL: usize = 1 << 17;

/// By register tiles.
struct Tiled {
    isa: Isa,
    map: LinearMap,
}

impl Tiled {
    /// Whether `packed` holds the transpose.
    fn transposes(&self) -> bool {
        self.map.inputs * self.map.outputs <= SMALL
    }
}

impl Product<f32> for Tiled {
    fn method(&self) -> &'static str {
        match self.map {
            LinearMap { outputs: 1, .. } => "f32 column",
            LinearMap { inputs: 1, .. } => "f32 of depth one",
            _ => "f32 tiles",
        }
    }

    fn needs(&self) -> Needs {
        let LinearMap { inputs, outputs, .. } = self.map;
        if self.transposes() {
            return Needs { packed: panels_len(outputs, inputs), ..Needs::default() };
        }
        Needs { scratch: transposed::scratch_len(outputs), ..Needs::default() }
    }

    fn adds_once(&self) -> bool {
        self.map.rows <= tiled::OUTER_ROWS
    }

    fn prepare(&self, panels: &[f32], packed: &mut [f32]) {
        if self.transposes() {
            transpose_panels(self.isa, self.map.inputs, self.map.outputs, panels, packed);
        }
    }

    fn forward(
        &self,
        x: Rows<'_, f32>,
        weight: Weight<'_, f32>,
        bias: Option<&[f32]>,
        y: RowsMut<'_, f32>,
        _scratch: &mut [f32],
    ) {
        tiled::product(self.isa, x, weight.panels, bias, y);
    }

    fn data_gradient(&self, dy: Rows<'_, f32>, weight: Weight<'_, f32>, dx: RowsMut<'_, f32>, scratch: &mut [f32]) {
        if self.transposes() {
            tiled::product(self.isa, dy, weight.packed, None, dx);
        } else {
            transposed::product_transposed(self.isa, dy, weight.panels, dx, scratch);
        }
    }

    fn weight_gradient(
        &self,
        x: Rows<'_, f32>,
        dy: Rows<'_, f32>,
        add: bool,
        dpanels: &mut [f32],
        _scratch: &mut [f32],
    ) {
        tiled::outer(self.isa, x, dy, add, dpanels);
    }

    fn bias_gradient(&self, dy: Rows<'_, f32>, add: bool, dbias: &mut [f32]) {
        column_sums(self.isa, dy, add, dbias);
    }
}

/// Of numbers rounded to bf16, which lie as pairs; sums are f32.
struct Pairs {
    isa: Isa,
    map: LinearMap,
}

impl Product<f32> for Pairs {
    fn method(&self) -> &'static str {
        if bf16::native() { "bf16 pairs" } else { "bf16 pairs, emulated" }
    }

    fn needs(&self) -> Needs {
        let LinearMap { rows, inputs, outputs } = self.map;
        Needs {
            packed: bf16::pairs_len(inputs, outputs) + bf16::pairs_len(outputs, inputs),
            scratch: bf16::scratch_len(rows, inputs, outputs),
            work: None,
        }
    }

    fn adds_once(&self) -> bool {
        self.map.rows <= tiled::OUTER_ROWS
    }

    fn prepare(&self, panels: &[f32], packed: &mut [f32]) {
        let LinearMap { inputs, outputs, .. } = self.map;
        let (straight, turned) = packed.split_at_mut(bf16::pairs_len(inputs, outputs));
        bf16::pack(self.isa, inputs, outputs, panels, straight, turned);
    }

    fn forward(
        &self,
        x: Rows<'_, f32>,
        weight: Weight<'_, f32>,
        bias: Option<&[f32]>,
        y: RowsMut<'_, f32>,
        scratch: &mut [f32],
    ) {
        bf16::product(self.isa, x, weight.packed, bias, y, scratch);
    }

    fn data_gradient(&self, dy: Rows<'_, f32>, weight: Weight<'_, f32>, dx: RowsMut<'_, f32>, scratch: &mut [f32]) {
        let turned = &weight.packed[bf16::pairs_len(self.map.inputs, self.map.outputs)..];
        bf16::product(self.isa, dy, turned, None, dx, scratch);
    }

    fn weight_gradient(
        &self,
        x: Rows<'_, f32>,
        dy: Rows<'_, f32>,
        add: bool,
        dpanels: &mut [f32],
        scratch: &mut [f32],
    ) {
        bf16::outer(self.isa, x, dy, add, dpanels, scratch);
    }

    fn bias_gradient(&self, dy: Rows<'_, f32>, add: bool, dbias: &mut [f32]) {
        column_sums(self.isa, dy, add, dbias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::reference;
    use crate::kernel::testing::{close, filled, isas};
    use crate::kernel::view::{rows, rows_mut};

    /// y, dx, dW and db of a planned product on fewer rows than planned, in dirty buffers.
    fn passes(product: &dyn Product<f32>, (m, k, n): (usize, usize, usize), add: bool) -> [Vec<f32>; 4] {
        let (x, dy, bias) = (filled(1, m * k), filled(2, m * n), filled(3, n));
        let mut panels = vec![0.0; panels_len(k, n)];
        crate::kernel::panel::pack(rows(k, n, &filled(4, k * n)), &mut panels);
        let needs = product.needs();
        let (mut packed, mut scratch) = (vec![f32::NAN; needs.packed], vec![f32::NAN; needs.scratch]);
        product.prepare(&panels, &mut packed);
        let weight = Weight { panels: &panels, packed: &packed };
        let (mut y, mut dx) = (vec![f32::NAN; m * n], vec![f32::NAN; m * k]);
        let (mut dpanels, mut dbias) = (panels.clone(), bias.clone());
        product.forward(rows(m, k, &x), weight, Some(&bias), rows_mut(m, n, &mut y), &mut scratch);
        product.data_gradient(rows(m, n, &dy), weight, rows_mut(m, k, &mut dx), &mut scratch);
        product.weight_gradient(rows(m, k, &x), rows(m, n, &dy), add, &mut dpanels, &mut scratch);
        product.bias_gradient(rows(m, n, &dy), add, &mut dbias);
        [y, dx, dpanels, dbias]
    }

    #[test]
    fn every_method_agrees_with_the_reference_on_every_instruction_set() {
        let shapes = [(1, 1, 1), (3, 7, 5), (16, 60, 128), (17, 1, 40), (20, 130, 1), (33, 300, 33), (9, 600, 250)];
        for (m, k, n) in shapes {
            let map = LinearMap { rows: m + 2, inputs: k, outputs: n };
            let scale = (k.max(m).max(n) as f32).sqrt().max(4.0);
            for add in [true, false] {
                let expected = passes(&*reference::product_plan::<f32>(map), (m, k, n), add);
                for isa in isas() {
                    for (precision, tolerance) in [(Precision::F32, 1e-6), (Precision::Bf16, 4e-3)] {
                        let planned = plan(isa, map, precision);
                        let found = passes(&*planned, (m, k, n), add);
                        for (name, (found, expected)) in ["y", "dx", "dw", "db"].iter().zip(found.iter().zip(&expected))
                        {
                            close(found, expected, tolerance * scale, &(name, planned.method(), isa, m, k, n, add));
                        }
                    }
                }
            }
        }
    }
}
