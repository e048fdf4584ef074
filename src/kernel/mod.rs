//! The arithmetic: operators that are planned once, and elementwise loops.
//!
//! Layers are generic over [`Real`], which plans a linear map ([`Product`]), a convolution ([`Conv`]) or a recurrent cell
//! ([`Cell`]): each chooses its method by shape, precision and instruction set, and owns its needs, its preparation and
//! its passes. A precision or an instruction set is a method in an operator and reaches no layer.
//!
//! Dimension letters: M rows (samples, or samples × time), K depth, N columns; panels as in [`crate::arena::Storage`].

mod activation;
mod column_sum;
mod conv;
mod gelu;
pub mod isa;
mod panel;
mod product;
mod real;
mod recurrent;
pub mod reference;
mod scalar;
mod simd;
pub mod sum;
#[cfg(test)]
mod testing;
mod transpose;
pub mod view;

pub use conv::{Activation, Conv, ConvGradients, Fused, Norm, Normalised, Sink, Upstream, Window};
pub use gelu::Approximate;
pub use isa::{Isa, isa};
pub use panel::{panel_index, panels_len};
pub use product::{LinearMap, Product};
pub use real::Real;
pub use recurrent::{Cell, CellGradients, CellKind, CellWeights, Kept, Recurrence};
pub use scalar::Scalar;

use crate::arena::PANEL;
use serde::{Deserialize, Serialize};

/// What the products of linear and recurrent layers multiply in. Weights, moments and sums are f32 with either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// bfloat16: activations, weights and gradients are rounded to 8 bits where they are multiplied, if that is faster.
    Bf16,
}

impl Precision {
    /// As the job file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// Whether products of bf16 run on instructions of this CPU.
pub fn bf16_is_native() -> bool {
    product::bf16::native()
}

/// Whether products of bf16 are faster than those of f32 on this CPU, or wanted all the same.
pub fn bf16_pays() -> bool {
    product::pays::pays()
}

/// Weights as the passes of an operator take them.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a, T> {
    /// As the arena has them.
    pub panels: &'a [T],
    /// As the operator's preparation left them.
    pub packed: &'a [T],
}

/// Sizes, in elements, of the buffers that an operator asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Packed weights.
    pub packed: usize,
    /// Free between calls.
    pub scratch: usize,
    /// Where products are not what the shapes say: the multiply-adds of one sample, counted as 2, and the weights' elements.
    pub work: Option<(u64, u64)>,
}
