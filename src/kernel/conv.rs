//! Convolutions for f32: which of the ways a window goes, see [`Real::conv2d_forward`](super::Real::conv2d_forward).

use super::direct::{Gradient, Output};
use super::epilogue::Epilogue;
use super::upstream::Source;
use super::{ConvNeeds, Init, Isa, Window, direct, panels_len, product, transpose, winograd};
use std::sync::OnceLock;

/// How a window is convolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Each output pixel reads a contiguous run of its own: a product, whose rows are `rows` an image.
    Product { rows: usize },
    /// Register tiles over the image.
    Direct,
    /// Fewer multiplications, a little less exact.
    Winograd,
}

/// Whether `DDL_CONV=direct` forbids Winograd, for who needs the last digits of f32.
fn only_direct() -> bool {
    static DIRECT: OnceLock<bool> = OnceLock::new();
    *DIRECT.get_or_init(|| std::env::var("DDL_CONV").is_ok_and(|method| method == "direct"))
}

/// The one for a window.
pub(super) fn method(window: &Window) -> Method {
    match fastest(window) {
        Method::Winograd if only_direct() => Method::Direct,
        method => method,
    }
}

fn fastest(window: &Window) -> Method {
    let Window { h, w, kernel, stride, padding, .. } = *window;
    if padding == (0, 0) && kernel == (1, 1) && stride == (1, 1) {
        Method::Product { rows: h * w }
    } else if padding == (0, 0) && kernel == (h, w) {
        Method::Product { rows: 1 }
    } else if winograd::suits(window) {
        Method::Winograd
    } else {
        Method::Direct
    }
}

/// See [`Real::conv2d_needs`](super::Real::conv2d_needs).
pub(crate) fn needs(window: &Window) -> ConvNeeds {
    let needs = match method(window) {
        Method::Product { .. } => ConvNeeds { packed: panels_len(window.o, window.depth()), ..Default::default() },
        Method::Direct => direct::needs(window),
        Method::Winograd => winograd::needs(window),
    };
    // Whatever the environment forbids: what is chosen by it must be the same everywhere.
    ConvNeeds { work: (fastest(window) == Method::Winograd).then(|| winograd::work(window)), ..needs }
}

/// See [`Real::conv2d_prepare`](super::Real::conv2d_prepare).
pub(crate) fn prepare(isa: Isa, window: &Window, panels: &[f32], packed: &mut [f32]) {
    match method(window) {
        Method::Product { .. } => transpose::transpose_panels(isa, window.depth(), window.o, panels, packed),
        Method::Direct => direct::prepare(isa, window, panels, packed),
        Method::Winograd => winograd::prepare(isa, window, panels, packed),
    }
}

/// See [`Real::conv2d_forward`](super::Real::conv2d_forward).
pub(crate) fn forward(
    isa: Isa,
    window: &Window,
    m: usize,
    x: &[f32],
    panels: &[f32],
    packed: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    check(window, m, x.len(), y.len(), panels.len());
    assert!(bias.is_none_or(|bias| bias.len() >= window.o), "the bias is too short");
    match method(window) {
        Method::Product { rows } => {
            let init = bias.map_or(Init::Zero, Init::Bias);
            product::product(isa, m * rows, window.depth(), window.o, x, window.depth(), panels, init, y, window.o)
        }
        Method::Direct => direct::forward(isa, window, m, x, panels, bias, Output::Plain(y), scratch),
        Method::Winograd => {
            let epilogue = Epilogue::store(window, m, y);
            winograd::forward(isa, window, m, x, packed, bias, &epilogue, scratch)
        }
    }
}

/// See [`Real::conv2d_backward`](super::Real::conv2d_backward).
pub(crate) fn backward(
    isa: Isa,
    window: &Window,
    m: usize,
    x: &[f32],
    dy: &[f32],
    packed: &[f32],
    dx: Option<&mut [f32]>,
    dpanels: &mut [f32],
    dbias: Option<&mut [f32]>,
    scratch: &mut [f32],
) {
    check(window, m, x.len(), dy.len(), dpanels.len());
    if let Some(dx) = &dx {
        assert!(dx.len() >= m * window.h * window.w * window.c, "dx is too short");
    }
    match method(window) {
        Method::Product { rows } => {
            let (rows, depth, o) = (m * rows, window.depth(), window.o);
            if let Some(dbias) = dbias {
                product::column_sums(rows, o, dy, o, dbias);
            }
            product::outer(isa, rows, depth, o, x, depth, dy, o, true, dpanels);
            if let Some(dx) = dx {
                product::product(isa, rows, o, depth, dy, o, packed, Init::Zero, dx, depth);
            }
        }
        Method::Direct => direct::backward(isa, window, m, x, Gradient::Plain(dy), packed, dx, dpanels, dbias, scratch),
        Method::Winograd => {
            let source = Source::plain(window, m, dy);
            winograd::backward(isa, window, m, x, &source, packed, dx, dpanels, dbias, scratch)
        }
    }
}

/// Panics unless the arrays hold what the window says: the kernels rely on it.
fn check(window: &Window, m: usize, x: usize, y: usize, panels: usize) {
    assert!(x >= m * window.h * window.w * window.c, "x is too short");
    assert!(y >= m * window.out_h() * window.out_w() * window.o, "y is too short");
    assert!(panels >= panels_len(window.depth(), window.o), "the panels are too short");
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::testing::{close, filled, isas};
    use super::*;

    /// Forward and backward of a window against the reference, with dirty buffers and fewer images than planned.
    fn agrees(isa: Isa, window: &Window, m: usize, case: u64) {
        let (inputs, outputs) = (window.h * window.w * window.c, window.out_h() * window.out_w() * window.o);
        let x = filled(case, m * inputs);
        let dy = filled(case + 1, m * outputs);
        let mut panels = vec![0.0; panels_len(window.depth(), window.o)];
        product::pack(window.depth(), window.o, &filled(case + 2, window.depth() * window.o), window.o, 1, &mut panels);
        let bias = filled(case + 3, window.o);
        let bias = (!case.is_multiple_of(3)).then_some(&bias[..]);
        let needs = needs(window);
        let [mut packed, mut scratch] = [needs.packed, needs.scratch].map(|len| vec![f32::NAN; len]);
        prepare(isa, window, &panels, &mut packed);
        let (mut y, mut y_expected) = (vec![f32::NAN; m * outputs], vec![f32::NAN; m * outputs]);
        forward(isa, window, m, &x, &panels, &packed, bias, &mut y, &mut scratch);
        reference::conv2d_forward(window, m, &x, &panels, bias, &mut y_expected);
        let what = (isa, window, m);
        close(&y, &y_expected, tolerance(window) * (window.depth() as f32).sqrt(), &("y", what));

        scratch.fill(f32::NAN);
        let before = filled(case + 4, panels.len());
        let (mut dpanels, mut dpanels_expected) = (before.clone(), before.clone());
        let (mut dbias, mut dbias_expected) = (filled(case + 5, window.o), filled(case + 5, window.o));
        let (mut dx, mut dx_expected) = (vec![f32::NAN; m * inputs], vec![f32::NAN; m * inputs]);
        let wants_dx = !case.is_multiple_of(4);
        backward(
            isa,
            window,
            m,
            &x,
            &dy,
            &packed,
            wants_dx.then_some(&mut dx[..]),
            &mut dpanels,
            bias.is_some().then_some(&mut dbias[..]),
            &mut scratch,
        );
        reference::conv2d_backward(
            window,
            m,
            &x,
            &dy,
            &panels,
            wants_dx.then_some(&mut dx_expected[..]),
            &mut dpanels_expected,
            bias.is_some().then_some(&mut dbias_expected[..]),
        );
        let pixels = (m * window.out_h() * window.out_w()) as f32;
        close(&dpanels, &dpanels_expected, tolerance(window) * pixels.sqrt(), &("dweight", what));
        close(&dbias, &dbias_expected, 1e-6 * pixels.sqrt(), &("dbias", what));
        if wants_dx {
            let depth = window.depth() / window.c * window.o;
            close(&dx, &dx_expected, tolerance(window) * (depth as f32).sqrt(), &("dx", what));
        }
        for (at, (new, old)) in dpanels.iter().zip(&before).enumerate() {
            let column = at / (window.depth() * super::super::PANEL) * super::super::PANEL + at % super::super::PANEL;
            assert!(column < window.o || new.to_bits() == old.to_bits(), "padding changed: {what:?}");
        }
    }

    /// Of an error relative to the largest element, for each √ of the depth: Winograd's inputs grow by up to 100 and more.
    fn tolerance(window: &Window) -> f32 {
        if method(window) == Method::Winograd { 6e-6 } else { 1e-6 }
    }

    #[test]
    fn any_window_agrees_with_the_reference() {
        let mut case = 0;
        for kernel in [1, 2, 3, 5, 7] {
            for stride in 1..=3 {
                for padding in 0..=3 {
                    for (c, o, h, w) in [(1, 8, 9, 7), (3, 33, 8, 11), (16, 16, 7, 8), (20, 40, 7, 10), (32, 32, 8, 7)]
                    {
                        case += 1;
                        let (kh, kw) = (kernel, if case % 5 == 0 { (kernel + 1).min(7) } else { kernel });
                        let (sh, sw) = (stride, if case % 7 == 0 { 1 } else { stride });
                        let (ph, pw) = (padding, if case % 3 == 0 { 0 } else { padding });
                        let window = Window { c, h, w, o, kernel: (kh, kw), stride: (sh, sw), padding: (ph, pw) };
                        if (kernel > 3 || stride > 1) && c * o > 300 && case % 3 > 0 {
                            continue;
                        }
                        for isa in isas() {
                            agrees(isa, &window, 1 + case as usize % 3, case);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_kernel_as_large_as_the_image_is_a_product() {
        let window = Window { c: 5, h: 4, w: 3, o: 35, kernel: (4, 3), stride: (2, 1), padding: (0, 0) };
        assert_eq!(method(&window), Method::Product { rows: 1 });
        for isa in isas() {
            agrees(isa, &window, 19, 5);
        }
    }

    #[test]
    fn winograd_agrees_with_the_reference_at_any_border() {
        let mut case = 0;
        for (c, o) in [(16, 16), (17, 33), (32, 40), (64, 20), (70, 16), (31, 64)] {
            for (h, w) in [(4, 4), (5, 6), (6, 9), (8, 8), (11, 7), (17, 14), (10, 26)] {
                for padding in [(0, 0), (1, 1), (0, 2), (3, 1), (2, 4)] {
                    case += 1;
                    let window = Window { c, h, w, o, kernel: (3, 3), stride: (1, 1), padding };
                    if method(&window) != Method::Winograd || (case % 3 > 0 && h * w > 40) {
                        continue;
                    }
                    for isa in isas() {
                        agrees(isa, &window, [1, 2, 5][case as usize % 3], case);
                    }
                }
            }
        }
    }

    #[test]
    fn results_depend_on_nothing_but_the_inputs() {
        for (c, o) in [(3, 10), (32, 40)] {
            let window = Window { c, h: 9, w: 10, o, kernel: (3, 3), stride: (1, 1), padding: (1, 1) };
            let (m, inputs, outputs) = (3, 90 * c, 90 * o);
            let (x, dy, bias) = (filled(1, m * inputs), filled(2, m * outputs), filled(3, o));
            let mut panels = vec![0.0; panels_len(window.depth(), o)];
            product::pack(window.depth(), o, &filled(4, window.depth() * o), o, 1, &mut panels);
            for isa in isas() {
                let needs = needs(&window);
                // What was in the buffers before, and where they lie, must not matter.
                let run = |dirt: f32, shift: usize| {
                    let buffer = |len: usize| vec![dirt; len + shift];
                    let (mut packed, mut scratch) = (buffer(needs.packed), buffer(needs.scratch));
                    let (packed, scratch) = (&mut packed[shift..], &mut scratch[shift..]);
                    let (mut y, mut dx) = (buffer(m * outputs), buffer(m * inputs));
                    let (mut dpanels, mut dbias) = (vec![0.0; panels.len()], vec![0.0; o]);
                    let (y, dx) = (&mut y[shift..], &mut dx[shift..]);
                    prepare(isa, &window, &panels, packed);
                    forward(isa, &window, m, &x, &panels, packed, Some(&bias), y, scratch);
                    let dbias_out = Some(&mut dbias[..]);
                    backward(isa, &window, m, &x, &dy, packed, Some(dx), &mut dpanels, dbias_out, scratch);
                    [y.to_vec(), dx.to_vec(), dpanels, dbias].concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
                };
                assert!(run(f32::NAN, 0) == run(1e30, 3), "{isa:?} {c} {o}");
            }
        }
    }
}
