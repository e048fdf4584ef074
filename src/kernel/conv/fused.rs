//! Convolutions that do what follows them on the way: see [`Fused`].

use super::direct::{Gradient, Output};
use super::epilogue::{Activation, Epilogue, MOMENTS, Norm, finish_images};
use super::patch::Side;
use super::upstream::{SUMS, Source, Upstream, norm_sums};
use super::{ConvGradients, FastConv, Method, direct, winograd};
use crate::kernel::Weight;
use crate::kernel::view::Images;

/// Where the output of a fused convolution goes.
pub enum Sink<'a, T> {
    /// Through the activation.
    Activated {
        /// What it goes through.
        activation: Activation,
        /// (M, OH, OW, O), or (M, OH/2, OW/2, O) where pooled.
        y: &'a mut [T],
        /// Where pooled: the place of the largest in its window.
        taps: &'a mut [u8],
    },
    /// To `y`, and summed up: see [`Fused::moments`].
    Moments {
        /// (M, OH, OW, O).
        y: &'a mut [T],
        /// [`Fused::sums_len`] elements.
        moments: &'a mut [T],
    },
}

/// The passes of a planned convolution with their epilogues; buffers as large as for [`Conv`](super::Conv).
pub trait Fused<T> {
    /// Elements of moments and of sums.
    fn sums_len(&self) -> usize;

    /// Convolves into `sink`.
    fn forward(
        &self,
        x: Images<'_, T>,
        weight: Weight<'_, T>,
        bias: Option<&[T]>,
        sink: Sink<'_, T>,
        scratch: &mut [T],
    );

    /// From the sums of `m` images that [`Sink::Moments`] left: mean(O) and the biased variance(O).
    fn moments(&self, m: usize, moments: &[T], mean: &mut [T], var: &mut [T]);

    /// y = activation(norm(x)) of the convolution's output x(M, OH, OW, O).
    fn normalise(&self, x: Images<'_, T>, norm: Norm<'_, T>, activation: Activation, y: &mut [T], taps: &mut [u8]);

    /// Σ g and Σ g·(x − mean) over `m` images, the first 2·O elements of `sums`; g is the gradient of the normalised
    /// output, and `from` has a norm, whose slope is not read.
    fn norm_sums(&self, m: usize, from: &Upstream<'_, T>, sums: &mut [T]);

    /// The gradients.
    fn backward(
        &self,
        x: Images<'_, T>,
        from: &Upstream<'_, T>,
        weight: Weight<'_, T>,
        gradients: ConvGradients<'_, T>,
        scratch: &mut [T],
    );
}

impl Fused<f32> for FastConv {
    fn sums_len(&self) -> usize {
        MOMENTS.max(SUMS) * self.window.o
    }

    fn forward(
        &self,
        x: Images<'_, f32>,
        weight: Weight<'_, f32>,
        bias: Option<&[f32]>,
        sink: Sink<'_, f32>,
        scratch: &mut [f32],
    ) {
        let (isa, window, m) = (self.isa, &self.window, self.images(x).1);
        self.check(&weight, bias);
        let epilogue = match sink {
            Sink::Activated { activation, y, taps } => Epilogue::activate(window, m, None, activation, y, taps),
            Sink::Moments { y, moments } => {
                moments[..MOMENTS * window.o].fill(0.0);
                Epilogue::moments(window, m, y, moments)
            }
        };
        match self.method {
            Method::Winograd => winograd::forward(isa, window, x, weight.packed, bias, &epilogue, scratch),
            _ => direct::forward(isa, window, x, weight.panels, bias, Output::Epilogue(&epilogue), scratch),
        }
    }

    fn moments(&self, m: usize, moments: &[f32], mean: &mut [f32], var: &mut [f32]) {
        let o = self.window.o;
        let count = (m * self.window.out_h() * self.window.out_w()) as f32;
        for i in 0..o {
            let [shift, sum, square, sums, squares] = std::array::from_fn(|array| moments[array * o + i]);
            let offset = (sum + sums) / count;
            mean[i] = shift + offset;
            // Not below 0 by rounding, but NaN where the sums are.
            let spread = (square + squares) / count - offset * offset;
            var[i] = if spread < 0.0 { 0.0 } else { spread };
        }
    }

    fn normalise(
        &self,
        x: Images<'_, f32>,
        norm: Norm<'_, f32>,
        activation: Activation,
        y: &mut [f32],
        taps: &mut [u8],
    ) {
        let (side, m) = (Side::output(&self.window), x.dim().0);
        assert!(x.dim() == self.outputs(m) && x.is_standard_layout(), "x has another shape");
        let epilogue = Epilogue::activate(&self.window, m, Some(norm), activation, y, taps);
        // SAFETY: `x` and the epilogue are of m images.
        unsafe { finish_images(self.isa, &side, 0, m * side.tiles.0 * side.tiles.1, x.as_ptr(), &epilogue) };
    }

    fn norm_sums(&self, m: usize, from: &Upstream<'_, f32>, sums: &mut [f32]) {
        let (o, side, source) = (self.window.o, Side::output(&self.window), Source::of(&self.window, m, from));
        let sums = &mut sums[..SUMS * o];
        sums.fill(0.0);
        // SAFETY: the source is for m images; `sums` has SUMS arrays of O elements.
        unsafe { norm_sums(self.isa, &side, 0, m * side.tiles.0 * side.tiles.1, &source, sums.as_mut_ptr()) };
        let (last, totals) = sums.split_at_mut(2 * o);
        for (last, total) in last.iter_mut().zip(totals) {
            *last += *total;
        }
    }

    fn backward(
        &self,
        x: Images<'_, f32>,
        from: &Upstream<'_, f32>,
        weight: Weight<'_, f32>,
        gradients: ConvGradients<'_, f32>,
        scratch: &mut [f32],
    ) {
        let (isa, window, m) = (self.isa, &self.window, self.images(x).1);
        self.check(&weight, None);
        self.check_gradients(m, &gradients);
        let source = Source::of(window, m, from);
        match self.method {
            Method::Winograd => winograd::backward(isa, window, x, &source, weight.packed, gradients, scratch),
            _ => direct::backward(isa, window, x, Gradient::Source(&source), weight.packed, gradients, scratch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Conv, Normalised, Window};
    use super::*;
    use crate::kernel::testing::{close, filled, isas};
    use crate::kernel::view::{images, images_mut, rows};
    use crate::kernel::{Isa, panel, panels_len};

    /// What the layers do one by one, in plain loops: the output after norm, ReLU and pooling, and for backward the
    /// gradient of the convolution's output from that of what came out.
    struct Plain<'a> {
        window: &'a Window,
        m: usize,
        activation: Activation,
        norm: Option<Norm<'a, f32>>,
        slope: [&'a [f32]; 3],
    }

    impl Plain<'_> {
        fn normalised(&self, x: f32, channel: usize) -> f32 {
            let Some(norm) = self.norm else { return x };
            f32::mul_add(norm.scale[channel], x - norm.mean[channel], norm.offset[channel])
        }

        /// Calls `visit(index in the result, indices in the convolution's output)` for each window.
        fn windows(&self, mut visit: impl FnMut(usize, &[usize])) {
            let (h, w, o) = (self.window.out_h(), self.window.out_w(), self.window.o);
            let step = if self.activation.pool { 2 } else { 1 };
            let mut result = 0;
            for image in 0..self.m {
                for (row, col) in (0..h / step).flat_map(|row| (0..w / step).map(move |col| (row, col))) {
                    for channel in 0..o {
                        let taps: Vec<usize> = (0..step * step)
                            .map(|tap| (row * step + tap / step, col * step + tap % step))
                            .map(|(row, col)| ((image * h + row) * w + col) * o + channel)
                            .collect();
                        visit(result, &taps);
                        result += 1;
                    }
                }
            }
        }

        fn forward(&self, x: &[f32]) -> Vec<f32> {
            let mut y = Vec::new();
            self.windows(|_, taps| {
                let values = taps.iter().map(|&tap| self.normalised(x[tap], tap % self.window.o));
                let most = values.fold(f32::NEG_INFINITY, f32::max);
                y.push(if self.activation.relu { most.max(0.0) } else { most });
            });
            y
        }

        /// g and the gradient of x.
        fn backward(&self, x: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
            let (o, mut g) = (self.window.o, vec![0.0; x.len()]);
            self.windows(|result, taps| {
                let value = |tap: usize| self.normalised(x[tap], tap % o);
                let best = taps.iter().copied().reduce(|a, b| if value(b) > value(a) { b } else { a }).unwrap();
                if !self.activation.relu || value(best) > 0.0 {
                    g[best] = dy[result];
                }
            });
            let Some(norm) = self.norm else { return (g.clone(), g) };
            let [a, b, d] = self.slope;
            let dx = |(at, g): (usize, &f32)| a[at % o] * g + b[at % o] * (x[at] - norm.mean[at % o]) + d[at % o];
            (g.clone(), g.iter().enumerate().map(dx).collect())
        }
    }

    fn agrees(isa: Isa, window: &Window, m: usize, activation: Activation, with_norm: bool, seed: u64) {
        let what = (isa, window, m, activation, with_norm);
        let (inputs, o) = (window.h * window.w * window.c, window.o);
        let outputs = m * window.out_h() * window.out_w() * o;
        let conv = FastConv { isa, window: *window, method: Method::of(window) };
        let (fused, input, output) =
            (conv.fused().unwrap(), (window.h, window.w, window.c), (window.out_h(), window.out_w(), o));
        let x = filled(seed, m * inputs);
        let mut panels = vec![0.0; panels_len(window.depth(), o)];
        panel::pack(rows(window.depth(), o, &filled(seed + 1, window.depth() * o)), &mut panels);
        let bias = filled(seed + 2, o);
        let needs = conv.needs();
        let (mut packed, mut scratch) = (vec![f32::NAN; needs.packed], vec![f32::NAN; needs.scratch]);
        conv.prepare(&panels, &mut packed);
        let (weight, x) = (Weight { panels: &panels, packed: &packed }, images(m, input, &x));
        let (mut conv_y, mut kept) = (vec![f32::NAN; outputs], vec![f32::NAN; outputs]);
        Conv::forward(&conv, x, weight, Some(&bias), images_mut(m, output, &mut conv_y), &mut scratch);

        let channels: [Vec<f32>; 6] = std::array::from_fn(|array| filled(seed + 3 + array as u64, o));
        let [mean, scale, offset, a, b, d] = channels.each_ref().map(|each| &each[..]);
        let norm = with_norm.then_some(Norm { mean, scale, offset });
        let plain = Plain { window, m, activation, norm, slope: [a, b, d] };
        let y_expected = plain.forward(&conv_y);
        let (mut y, mut taps) = (vec![f32::NAN; y_expected.len()], vec![99; y_expected.len()]);
        scratch.fill(f32::NAN);
        if let Some(norm) = norm {
            let mut moments = vec![f32::NAN; fused.sums_len()];
            let sink = Sink::Moments { y: &mut kept, moments: &mut moments };
            fused.forward(x, weight, Some(&bias), sink, &mut scratch);
            close(&kept, &conv_y, 0.0, &("output", what));
            let (mut mean, mut var) = (vec![0.0; o], vec![0.0; o]);
            fused.moments(m, &moments, &mut mean, &mut var);
            for channel in 0..o {
                let values = || conv_y.iter().skip(channel).step_by(o).map(|&v| f64::from(v));
                let count = values().count() as f64;
                let exact = values().sum::<f64>() / count;
                let spread = values().map(|v| (v - exact).powi(2)).sum::<f64>() / count;
                assert!((f64::from(mean[channel]) - exact).abs() < 1e-6 * (1.0 + spread.sqrt()), "mean {what:?}");
                assert!((f64::from(var[channel]) - spread).abs() < 1e-5 * (1e-6 + spread), "variance {what:?}");
            }
            fused.normalise(images(m, output, &kept), norm, activation, &mut y, &mut taps);
        } else {
            let sink = Sink::Activated { activation, y: &mut y, taps: &mut taps };
            fused.forward(x, weight, Some(&bias), sink, &mut scratch);
        }
        close(&y, &y_expected, 1e-6, &("y", what));

        let dy = filled(seed + 20, y.len());
        let (g, dy_expected) = plain.backward(&conv_y, &dy);
        let normalised = norm.map(|norm| Normalised { x: &kept, norm, slope: [a, b, d] });
        let from = Upstream { activation, dy: &dy, y: &y, taps: &taps, normalised };
        if with_norm {
            let mut sums = vec![f32::NAN; fused.sums_len()];
            fused.norm_sums(m, &from, &mut sums);
            let mut expected = vec![0.0; 2 * o];
            for (at, &g) in g.iter().enumerate() {
                expected[at % o] += g;
                expected[o + at % o] += g * (conv_y[at] - mean[at % o]);
            }
            close(&sums[..2 * o], &expected, 1e-5, &("sums", what));
        }
        scratch.fill(f32::NAN);
        let mut run = |at_once: bool| {
            let (mut dx, mut dpanels, mut dbias) = (vec![f32::NAN; m * inputs], vec![0.5; panels.len()], vec![0.5; o]);
            let out = Some(images_mut(m, input, &mut dx));
            let gradients = ConvGradients { dx: out, dpanels: &mut dpanels, dbias: Some(&mut dbias) };
            if at_once {
                fused.backward(x, &from, weight, gradients, &mut scratch);
            } else {
                Conv::backward(&conv, x, images(m, output, &dy_expected), weight, gradients, &mut scratch);
            }
            [dx, dpanels, dbias]
        };
        // Winograd makes more of the last bits in which the two gradients of a normalised output differ.
        let tolerance = if with_norm { 1e-4 } else { 1e-6 };
        let (got, expected) = (run(true), run(false));
        for (name, (got, expected)) in ["dx", "dweight", "dbias"].iter().zip(got.iter().zip(&expected)) {
            close(got, expected, tolerance, &(name, what));
        }
    }

    #[test]
    fn fused_convolutions_agree_with_one_step_after_the_other() {
        let mut case = 0;
        for (c, o) in [(1, 8), (3, 33), (16, 20), (32, 40)] {
            for (h, w) in [(2, 2), (5, 6), (9, 8), (8, 11), (14, 3)] {
                for (stride, padding) in [(1, 1), (1, 0), (2, 1)] {
                    for choice in 0..8 {
                        case += 1;
                        let [relu, pool, norm] = [1, 2, 4].map(|bit| choice & bit > 0);
                        let window = Window {
                            c,
                            h,
                            w,
                            o,
                            kernel: (3, 3),
                            stride: (stride, stride),
                            padding: (padding, padding),
                            ..Window::default()
                        };
                        let fits = h + 2 * padding >= 3 && w + 2 * padding >= 3;
                        if !fits || (pool && (window.out_h() < 2 || window.out_w() < 2)) {
                            continue;
                        }
                        for isa in isas() {
                            let m = 1 + case as usize % 3;
                            agrees(isa, &window, m, Activation { relu, pool }, norm, 100 * case);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nan_goes_through_and_ties_go_to_the_first() {
        let window = Window { c: 1, h: 2, w: 8, o: 1, kernel: (3, 3), padding: (1, 1), ..Window::default() };
        let nan = f32::NAN;
        // Four windows: a NaN at each end, a tie, all closed.
        let x = [nan, 1.0, 3.0, 2.0, 5.0, 5.0, -1.0, -2.0, 2.0, 9.0, 1.0, nan, 5.0, 0.0, -3.0, -1.0];
        for isa in isas() {
            let (mut y, mut taps) = ([0.0; 4], [9; 4]);
            let activation = Activation { relu: true, pool: true };
            let norm = Norm { mean: &[0.0], scale: &[1.0], offset: &[0.0] };
            let conv = FastConv { isa, window, method: Method::of(&window) };
            conv.normalise(images(1, (2, 8, 1), &x), norm, activation, &mut y, &mut taps);
            assert!(y[0].is_nan() && y[1].is_nan() && y[2..] == [5.0, 0.0], "{isa:?} {y:?}");
            assert_eq!(taps[2..], [0, 4], "{isa:?}");
        }
    }
}
