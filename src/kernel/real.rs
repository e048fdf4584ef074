//! [`Real`] for f64 (the naive kernels) and f32 (the fast ones).

use super::fused::FastFused;
use super::{
    Approximate, ConvNeeds, Fused, Init, LstmGradients, LstmWeights, Real, Recurrence, Window, activation, bf16, conv,
    gelu, isa, lstm, product, reference, transpose, transposed,
};

/// What a system's own library would round as it likes is `libm`'s: the same bits everywhere.
macro_rules! scalar_functions {
    ($t:ty, $exp:path, $ln:path, $tanh:path) => {
        const ZERO: Self = 0.0;
        const ONE: Self = 1.0;
        #[inline(always)]
        fn of(value: f64) -> Self {
            value as $t
        }
        #[inline(always)]
        fn to_f64(self) -> f64 {
            self.into()
        }
        #[inline(always)]
        fn sqrt(self) -> Self {
            <$t>::sqrt(self)
        }
        #[inline(always)]
        fn abs(self) -> Self {
            <$t>::abs(self)
        }
        #[inline(always)]
        fn exp(self) -> Self {
            $exp(self)
        }
        #[inline(always)]
        fn ln(self) -> Self {
            $ln(self)
        }
        #[inline(always)]
        fn tanh(self) -> Self {
            $tanh(self)
        }
        #[inline(always)]
        fn sigmoid(self) -> Self {
            1.0 / (1.0 + $exp(-self))
        }
        #[inline(always)]
        fn flushed(self) -> Self {
            if self.abs() < <$t>::MIN_POSITIVE { 0.0 } else { self }
        }
        #[inline(always)]
        fn is_finite(self) -> bool {
            <$t>::is_finite(self)
        }
    };
}

macro_rules! reference_kernels {
    () => {
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
        ) {
            reference::product(m, k, n, a, lda, panels, init, c, ldc)
        }
        fn product_transposed(
            m: usize,
            n: usize,
            k: usize,
            a: &[Self],
            panels: &[Self],
            c: &mut [Self],
            _scratch: &mut [Self],
        ) {
            reference::product_transposed(m, n, k, a, panels, c)
        }
        fn product_transposed_scratch(_n: usize) -> usize {
            0
        }
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
        ) {
            if !add {
                panels.fill(Self::ZERO);
            }
            reference::outer(m, k, n, a, lda, b, ldb, panels)
        }
        fn pack(k: usize, n: usize, b: &[Self], row: usize, column: usize, panels: &mut [Self]) {
            reference::pack(k, n, b, row, column, panels)
        }
        fn transpose_panels(k: usize, n: usize, panels: &[Self], transposed: &mut [Self]) {
            reference::transpose_panels(k, n, panels, transposed)
        }
        fn transpose(rows: usize, columns: usize, from: &[Self], to: &mut [Self]) {
            reference::transpose(rows, columns, from, to)
        }
        fn column_sums(m: usize, n: usize, a: &[Self], lda: usize, sums: &mut [Self]) {
            reference::column_sums(m, n, a, lda, sums)
        }
        fn conv2d_needs(_window: &Window) -> ConvNeeds {
            ConvNeeds::default()
        }
        fn conv2d_prepare(_window: &Window, _panels: &[Self], _packed: &mut [Self]) {}
        fn conv2d_forward(
            window: &Window,
            m: usize,
            x: &[Self],
            panels: &[Self],
            _packed: &[Self],
            bias: Option<&[Self]>,
            y: &mut [Self],
            _scratch: &mut [Self],
        ) {
            reference::conv2d_forward(window, m, x, panels, bias, y)
        }
        fn conv2d_backward(
            window: &Window,
            m: usize,
            x: &[Self],
            dy: &[Self],
            panels: &[Self],
            _packed: &[Self],
            dx: Option<&mut [Self]>,
            dpanels: &mut [Self],
            dbias: Option<&mut [Self]>,
            _scratch: &mut [Self],
        ) {
            reference::conv2d_backward(window, m, x, dy, panels, dx, dpanels, dbias)
        }
        fn lstm_prepare(_r: &Recurrence, _weights: &LstmWeights<'_, Self>, _packed: &mut [Self]) {}
        fn lstm_forward(
            r: &Recurrence,
            m: usize,
            weights: &LstmWeights<'_, Self>,
            _packed: &[Self],
            z: &mut [Self],
            cache: &mut [Self],
            _scratch: &mut [Self],
        ) {
            reference::lstm_forward(r, m, weights, z, cache)
        }
        fn lstm_backward(
            r: &Recurrence,
            m: usize,
            weights: &LstmWeights<'_, Self>,
            _packed: &[Self],
            z: &[Self],
            cache: &[Self],
            dy: &[Self],
            dx: Option<&mut [Self]>,
            gradients: LstmGradients<'_, Self>,
            _scratch: &mut [Self],
        ) {
            reference::lstm_backward(r, m, weights, z, cache, dy, dx, gradients)
        }
    };
}

impl Real for f64 {
    scalar_functions!(f64, libm::exp, libm::log, libm::tanh);
    reference_kernels!();
}

impl Real for f32 {
    scalar_functions!(f32, libm::expf, libm::logf, libm::tanhf);

    fn fused() -> Option<&'static dyn Fused<Self>> {
        Some(FastFused::on(isa()))
    }

    fn exp_slice(values: &mut [Self]) {
        activation::exp_slice(isa(), values)
    }
    fn tanh_slice(values: &mut [Self]) {
        activation::tanh_slice(isa(), values)
    }
    fn sigmoid_slice(values: &mut [Self]) {
        activation::sigmoid_slice(isa(), values)
    }
    fn gelu(form: Approximate, x: &[Self], y: &mut [Self]) {
        gelu::forward(isa(), form, x, y)
    }
    fn gelu_gradient(form: Approximate, x: &[Self], dy: &[Self], dx: &mut [Self]) {
        gelu::gradient(isa(), form, x, dy, dx)
    }
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
    ) {
        product::product(isa(), m, k, n, a, lda, panels, init, c, ldc)
    }
    fn product_transposed(
        m: usize,
        n: usize,
        k: usize,
        a: &[Self],
        panels: &[Self],
        c: &mut [Self],
        scratch: &mut [Self],
    ) {
        transposed::product_transposed(isa(), m, n, k, a, panels, c, scratch)
    }
    fn product_transposed_scratch(n: usize) -> usize {
        transposed::scratch_len(n)
    }
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
    ) {
        product::outer(isa(), m, k, n, a, lda, b, ldb, add, panels)
    }
    fn pack(k: usize, n: usize, b: &[Self], row: usize, column: usize, panels: &mut [Self]) {
        product::pack(k, n, b, row, column, panels)
    }
    fn transpose_panels(k: usize, n: usize, panels: &[Self], transposed: &mut [Self]) {
        transpose::transpose_panels(isa(), k, n, panels, transposed)
    }
    fn transpose(rows: usize, columns: usize, from: &[Self], to: &mut [Self]) {
        transpose::transpose(isa(), rows, columns, from, to)
    }
    fn column_sums(m: usize, n: usize, a: &[Self], lda: usize, sums: &mut [Self]) {
        product::column_sums(m, n, a, lda, sums)
    }
    fn bf16_len(k: usize, n: usize) -> usize {
        bf16::pairs_len(k, n)
    }
    fn pack_bf16(k: usize, n: usize, panels: &[Self], packed: &mut [Self], transposed: &mut [Self]) {
        bf16::pack(isa(), k, n, panels, packed, transposed)
    }
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
        scratch: &mut [Self],
    ) {
        bf16::product(isa(), m, k, n, a, lda, packed, init, c, ldc, scratch)
    }
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
        scratch: &mut [Self],
    ) {
        bf16::outer(isa(), m, k, n, a, lda, b, ldb, add, panels, scratch)
    }
    fn conv2d_needs(window: &Window) -> ConvNeeds {
        conv::needs(window)
    }
    fn conv2d_prepare(window: &Window, panels: &[Self], packed: &mut [Self]) {
        conv::prepare(isa(), window, panels, packed)
    }
    fn conv2d_forward(
        window: &Window,
        m: usize,
        x: &[Self],
        panels: &[Self],
        packed: &[Self],
        bias: Option<&[Self]>,
        y: &mut [Self],
        scratch: &mut [Self],
    ) {
        conv::forward(isa(), window, m, x, panels, packed, bias, y, scratch)
    }
    fn conv2d_backward(
        window: &Window,
        m: usize,
        x: &[Self],
        dy: &[Self],
        _panels: &[Self],
        packed: &[Self],
        dx: Option<&mut [Self]>,
        dpanels: &mut [Self],
        dbias: Option<&mut [Self]>,
        scratch: &mut [Self],
    ) {
        conv::backward(isa(), window, m, x, dy, packed, dx, dpanels, dbias, scratch)
    }
    fn lstm_prepare(r: &Recurrence, weights: &LstmWeights<'_, Self>, packed: &mut [Self]) {
        lstm::prepare(isa(), r, weights, packed)
    }
    fn lstm_forward(
        r: &Recurrence,
        m: usize,
        _weights: &LstmWeights<'_, Self>,
        packed: &[Self],
        z: &mut [Self],
        cache: &mut [Self],
        scratch: &mut [Self],
    ) {
        lstm::forward(isa(), r, m, packed, z, cache, scratch)
    }
    fn lstm_backward(
        r: &Recurrence,
        m: usize,
        _weights: &LstmWeights<'_, Self>,
        packed: &[Self],
        z: &[Self],
        cache: &[Self],
        dy: &[Self],
        dx: Option<&mut [Self]>,
        gradients: LstmGradients<'_, Self>,
        scratch: &mut [Self],
    ) {
        lstm::backward(isa(), r, m, packed, z, cache, dy, dx, gradients, scratch)
    }
}
