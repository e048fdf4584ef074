//! The arithmetic: products on panels, convolutions, recurrent cells and elementwise loops.
//!
//! Layers are generic over [`Real`]. For f64 every kernel is the naive one in [`reference`], which serves the gradient
//! checks; for f32 it is the fast one for the instruction set that [`isa()`] chose at start.
//!
//! Dimension letters: M rows (samples, or samples × time), K depth, N columns; panels as in [`crate::arena::Storage`].

mod activation;
mod bf16;
mod column;
mod conv;
mod direct;
mod epilogue;
mod fused;
mod gelu;
pub mod isa;
mod lstm;
mod outer;
mod patch;
mod product;
mod real;
pub mod reference;
mod simd;
pub mod sum;
#[cfg(test)]
mod testing;
mod tile;
mod transpose;
mod transposed;
mod upstream;
mod winograd;

pub use bf16::{native as bf16_is_native, scratch_len as bf16_scratch_len};
pub use epilogue::{Activation, Norm};
pub use fused::{Fused, Sink};
pub use gelu::Approximate;
pub use isa::{Isa, isa};
pub use lstm::{LstmGradients, LstmWeights, Recurrence};
pub(crate) use product::OUTER_ROWS;
pub use upstream::{Normalised, Upstream};

use crate::arena::PANEL;

/// Geometry of a 2-D window over NHWC images: of a convolution or a pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Input channels.
    pub c: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Output channels (equal to `c` for pooling).
    pub o: usize,
    /// Kernel size (height, width).
    pub kernel: (usize, usize),
    /// Stride (height, width).
    pub stride: (usize, usize),
    /// Zero padding on both sides (height, width).
    pub padding: (usize, usize),
}

impl Window {
    /// Output height: floor((H + 2p - k) / s) + 1.
    pub fn out_h(&self) -> usize {
        (self.h + 2 * self.padding.0 - self.kernel.0) / self.stride.0 + 1
    }

    /// Output width.
    pub fn out_w(&self) -> usize {
        (self.w + 2 * self.padding.1 - self.kernel.1) / self.stride.1 + 1
    }

    /// Depth of the implicit product: taps × input channels.
    pub fn depth(&self) -> usize {
        self.kernel.0 * self.kernel.1 * self.c
    }
}

/// Elements of K×N panels.
pub const fn panels_len(k: usize, n: usize) -> usize {
    n.div_ceil(PANEL) * k * PANEL
}

/// Where element (k, n) of K×N panels lies: `[ceil(N / 32)][K][32]`.
#[inline(always)]
pub const fn panel_index(depth: usize, k: usize, n: usize) -> usize {
    n / PANEL * depth * PANEL + k * PANEL + n % PANEL
}

/// What a product does with what is already in its output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init<'a, T> {
    /// Overwrite.
    Zero,
    /// Overwrite, starting from a bias of N elements.
    Bias(&'a [T]),
    /// Add to it.
    Add,
}

/// A floating-point type the layers work in, with its kernels.
///
/// All slices are dense row-major unless a stride is named. No kernel of f32 allocates.
pub trait Real:
    Copy
    + Send
    + Sync
    + PartialOrd
    + Default
    + std::fmt::Debug
    + bytemuck::Pod
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + std::iter::Sum
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Rounds from f64.
    fn of(value: f64) -> Self;
    /// Widens to f64.
    fn to_f64(self) -> f64;
    /// √x.
    fn sqrt(self) -> Self;
    /// |x|.
    fn abs(self) -> Self;
    /// eˣ.
    fn exp(self) -> Self;
    /// ln x.
    fn ln(self) -> Self;
    /// tanh x.
    fn tanh(self) -> Self;
    /// 1 / (1 + e⁻ˣ).
    fn sigmoid(self) -> Self;
    /// The larger; a NaN wins.
    #[allow(clippy::eq_op)] // True for a NaN.
    fn max(self, other: Self) -> Self {
        if other > self || other != other { other } else { self }
    }
    /// 0 where it is subnormal, which many CPUs compute with a hundred times as slowly.
    fn flushed(self) -> Self;
    /// Whether neither infinite nor NaN.
    fn is_finite(self) -> bool;

    /// x = eˣ for each.
    fn exp_slice(values: &mut [Self]) {
        for value in values {
            *value = value.exp();
        }
    }
    /// x = tanh x for each.
    fn tanh_slice(values: &mut [Self]) {
        for value in values {
            *value = value.tanh();
        }
    }
    /// x = 1 / (1 + e⁻ˣ) for each.
    fn sigmoid_slice(values: &mut [Self]) {
        for value in values {
            *value = value.sigmoid();
        }
    }
    /// y = x·Φ(x) for each, Φ the normal distribution; `y` is as long as `x`.
    fn gelu(form: Approximate, x: &[Self], y: &mut [Self]) {
        gelu::reference(form, x, y)
    }
    /// dx = dy·(Φ(x) + x·Φ'(x)) for each; all are of one length.
    fn gelu_gradient(form: Approximate, x: &[Self], dy: &[Self], dx: &mut [Self]) {
        gelu::reference_gradient(form, x, dy, dx)
    }

    /// C = A·B (+ C or bias): `a` is M rows of K elements, `lda` apart; `panels` is K×N; `c` is M rows of N, `ldc` apart.
    fn product(
        m: usize,
        k: usize,
        n: usize,
        a: &[Self],
        lda: usize,
        panels: &[Self],
        init: Init<'_, Self>,
        c: &mut [Self],
        ldc: usize,
    );

    /// C = A·Pᵀ, dense: `a` is (M, N), `panels` is P (K×N), `c` is (M, K). For `scratch` see
    /// [`Real::product_transposed_scratch`].
    fn product_transposed(
        m: usize,
        n: usize,
        k: usize,
        a: &[Self],
        panels: &[Self],
        c: &mut [Self],
        scratch: &mut [Self],
    );

    /// Elements of scratch for a [`Real::product_transposed`] of N columns.
    fn product_transposed_scratch(n: usize) -> usize;

    /// panels(K×N) += Aᵀ·B: `a` is M rows of K, `lda` apart; `b` is M rows of N, `ldb` apart. Columns past N stay as they are.
    fn outer(
        m: usize,
        k: usize,
        n: usize,
        a: &[Self],
        lda: usize,
        b: &[Self],
        ldb: usize,
        add: bool,
        panels: &mut [Self],
    );

    /// Packs a dense K×N matrix (element (k, n) at `k * row + n * column` of `b`) into panels; padding becomes zero.
    fn pack(k: usize, n: usize, b: &[Self], row: usize, column: usize, panels: &mut [Self]);

    /// From K×N `panels` to N×K panels of the transpose; padding becomes zero.
    fn transpose_panels(k: usize, n: usize, panels: &[Self], transposed: &mut [Self]);

    /// Each of the dense matrices (rows, columns) in `from` transposed to (columns, rows) in `to`.
    fn transpose(rows: usize, columns: usize, from: &[Self], to: &mut [Self]);

    /// sums(N) += column sums of `a`: M rows of N, `lda` apart.
    fn column_sums(m: usize, n: usize, a: &[Self], lda: usize, sums: &mut [Self]);

    /// Elements of K×N panels packed for [`Real::product_bf16`].
    fn bf16_len(k: usize, n: usize) -> usize {
        panels_len(k, n)
    }

    /// Packs K×N `panels` and their transpose (N×K) for [`Real::product_bf16`]. f64, which is for gradient checks, is not
    /// rounded.
    fn pack_bf16(k: usize, n: usize, panels: &[Self], packed: &mut [Self], transposed: &mut [Self]) {
        packed[..panels_len(k, n)].copy_from_slice(&panels[..panels_len(k, n)]);
        Self::transpose_panels(k, n, panels, transposed);
    }

    /// [`Real::product`] of numbers rounded to bf16; the sums are not. Of scratch [`bf16_scratch_len`] elements.
    fn product_bf16(
        m: usize,
        k: usize,
        n: usize,
        a: &[Self],
        lda: usize,
        packed: &[Self],
        init: Init<'_, Self>,
        c: &mut [Self],
        ldc: usize,
        _scratch: &mut [Self],
    ) {
        Self::product(m, k, n, a, lda, packed, init, c, ldc);
    }

    /// [`Real::outer`] of numbers rounded to bf16; the sums are not. Of scratch [`bf16_scratch_len`] elements.
    fn outer_bf16(
        m: usize,
        k: usize,
        n: usize,
        a: &[Self],
        lda: usize,
        b: &[Self],
        ldb: usize,
        add: bool,
        panels: &mut [Self],
        _scratch: &mut [Self],
    ) {
        Self::outer(m, k, n, a, lda, b, ldb, add, panels);
    }

    /// Elements of scratch that the two passes need, and of the weights packed by [`Real::conv2d_prepare`].
    fn conv2d_needs(window: &Window) -> ConvNeeds;

    /// Once a step: whatever the kernels want of the weights `panels` (depth×O, as stored) in another form.
    fn conv2d_prepare(window: &Window, panels: &[Self], packed: &mut [Self]);

    /// y(M, OH, OW, O) = conv(x(M, H, W, C)) + bias.
    fn conv2d_forward(
        window: &Window,
        m: usize,
        x: &[Self],
        panels: &[Self],
        packed: &[Self],
        bias: Option<&[Self]>,
        y: &mut [Self],
        scratch: &mut [Self],
    );

    /// dpanels += the weight gradient, dbias += sums of dy, and dx = the data gradient where asked for. `x` is as the forward pass had it.
    fn conv2d_backward(
        window: &Window,
        m: usize,
        x: &[Self],
        dy: &[Self],
        panels: &[Self],
        packed: &[Self],
        dx: Option<&mut [Self]>,
        dpanels: &mut [Self],
        dbias: Option<&mut [Self]>,
        scratch: &mut [Self],
    );

    /// Convolutions that do what follows them on the way; None where there are only the plain ones.
    fn fused() -> Option<&'static dyn Fused<Self>> {
        None
    }

    /// Once a step: the weights in the forms that the two passes want, [`Recurrence::packed_len`] elements.
    fn lstm_prepare(r: &Recurrence, weights: &LstmWeights<'_, Self>, packed: &mut [Self]);

    /// Runs over the sequence of `m` samples: `z` holds the rows (h, x), T + 1 steps of M, [`Recurrence::row_len`]
    /// apart, of which x is given and h is filled, that of the last step behind the last row of x.
    fn lstm_forward(
        r: &Recurrence,
        m: usize,
        weights: &LstmWeights<'_, Self>,
        packed: &[Self],
        z: &mut [Self],
        cache: &mut [Self],
        scratch: &mut [Self],
    );

    /// From `dy` (T, M, width), the gradient of all directions' hidden states in the order of time, adds to those of the
    /// weights. `dx` (T, M, inputs) is overwritten, or added to by the reverse direction. `z` and `cache` are as the
    /// forward pass left them.
    fn lstm_backward(
        r: &Recurrence,
        m: usize,
        weights: &LstmWeights<'_, Self>,
        packed: &[Self],
        z: &[Self],
        cache: &[Self],
        dy: &[Self],
        dx: Option<&mut [Self]>,
        gradients: LstmGradients<'_, Self>,
        scratch: &mut [Self],
    );
}

/// Sizes, in elements, of the buffers that the convolution kernels ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConvNeeds {
    /// Packed weights.
    pub packed: usize,
    /// Free between calls.
    pub scratch: usize,
    /// Where products are not those of the window: the multiply-adds of one image, counted as 2, and the weights' elements.
    pub work: Option<(u64, u64)>,
}
