//! The methods against the reference.

use super::*;
use crate::kernel::testing::{close, filled, isas};
use crate::kernel::view::{images, images_mut};
use crate::kernel::{PANEL, panel, reference};

/// Forward and backward of a window against the reference, with dirty buffers and fewer images than planned.
fn agrees(isa: Isa, window: &Window, m: usize, case: u64) {
    let (inputs, outputs) = (window.h * window.w * window.c, window.out_h() * window.out_w() * window.o);
    let x = filled(case, m * inputs);
    let dy = filled(case + 1, m * outputs);
    let mut panels = vec![0.0; panels_len(window.depth(), window.o)];
    panel::pack(rows(window.depth(), window.o, &filled(case + 2, window.depth() * window.o)), &mut panels);
    let bias = filled(case + 3, window.o);
    let bias = (!case.is_multiple_of(3)).then_some(&bias[..]);
    let (conv, plain) = (plan(isa, *window), reference::conv_plan::<f32>(*window));
    let (input, output) = ((window.h, window.w, window.c), (window.out_h(), window.out_w(), window.o));
    let needs = conv.needs();
    let [mut packed, mut scratch] = [needs.packed, needs.scratch].map(|len| vec![f32::NAN; len]);
    conv.prepare(&panels, &mut packed);
    let (weight, x, dy) = (Weight { panels: &panels, packed: &packed }, images(m, input, &x), images(m, output, &dy));
    let (mut y, mut y_expected) = (vec![f32::NAN; m * outputs], vec![f32::NAN; m * outputs]);
    conv.forward(x, weight, bias, images_mut(m, output, &mut y), &mut scratch);
    plain.forward(x, weight, bias, images_mut(m, output, &mut y_expected), &mut []);
    let what = (isa, window, m);
    close(&y, &y_expected, tolerance(window) * (window.depth() as f32).sqrt(), &("y", what));

    scratch.fill(f32::NAN);
    let before = filled(case + 4, panels.len());
    let (mut dpanels, mut dpanels_expected) = (before.clone(), before.clone());
    let (mut dbias, mut dbias_expected) = (filled(case + 5, window.o), filled(case + 5, window.o));
    let (mut dx, mut dx_expected) = (vec![f32::NAN; m * inputs], vec![f32::NAN; m * inputs]);
    let wants_dx = !case.is_multiple_of(4);
    let gradients = ConvGradients {
        dx: wants_dx.then(|| images_mut(m, input, &mut dx)),
        dpanels: &mut dpanels,
        dbias: bias.is_some().then_some(&mut dbias[..]),
    };
    conv.backward(x, dy, weight, gradients, &mut scratch);
    let gradients = ConvGradients {
        dx: wants_dx.then(|| images_mut(m, input, &mut dx_expected)),
        dpanels: &mut dpanels_expected,
        dbias: bias.is_some().then_some(&mut dbias_expected[..]),
    };
    plain.backward(x, dy, weight, gradients, &mut []);
    let pixels = (m * window.out_h() * window.out_w()) as f32;
    close(&dpanels, &dpanels_expected, tolerance(window) * pixels.sqrt(), &("dweight", what));
    close(&dbias, &dbias_expected, 1e-6 * pixels.sqrt(), &("dbias", what));
    if wants_dx {
        let depth = window.kernel.0 * window.kernel.1 * window.o / window.groups;
        close(&dx, &dx_expected, tolerance(window) * (depth as f32).sqrt(), &("dx", what));
    }
    for (at, (new, old)) in dpanels.iter().zip(&before).enumerate() {
        let column = at / (window.depth() * PANEL) * PANEL + at % PANEL;
        assert!(column < window.o || new.to_bits() == old.to_bits(), "padding changed: {what:?}");
    }
}

/// Of an error relative to the largest element, for each √ of the depth: Winograd's inputs grow by up to 100 and more.
fn tolerance(window: &Window) -> f32 {
    if plan(Isa::Portable, window.of_group()).method() == "f32 Winograd" { 6e-6 } else { 1e-6 }
}

#[test]
fn any_window_agrees_with_the_reference() {
    let mut case = 0;
    for kernel in [1, 2, 3, 5, 7] {
        for stride in 1..=3 {
            for padding in 0..=3 {
                for (c, o, h, w) in [(1, 8, 9, 7), (3, 33, 8, 11), (16, 16, 7, 8), (20, 40, 7, 10), (32, 32, 8, 7)] {
                    case += 1;
                    let (kh, kw) = (kernel, if case % 5 == 0 { (kernel + 1).min(7) } else { kernel });
                    let (sh, sw) = (stride, if case % 7 == 0 { 1 } else { stride });
                    let (ph, pw) = (padding, if case % 3 == 0 { 0 } else { padding });
                    let window = Window {
                        c,
                        h,
                        w,
                        o,
                        kernel: (kh, kw),
                        stride: (sh, sw),
                        padding: (ph, pw),
                        ..Window::default()
                    };
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
    let window = Window { c: 5, h: 4, w: 3, o: 35, kernel: (4, 3), stride: (2, 1), ..Window::default() };
    assert_eq!(Method::of(&window), Method::Product { rows: 1 });
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
                let window = Window { c, h, w, o, kernel: (3, 3), padding, ..Window::default() };
                if Method::of(&window) != Method::Winograd || (case % 3 > 0 && h * w > 40) {
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
fn groups_dilation_and_uneven_padding_agree_with_the_reference() {
    let mut case = 0;
    for (c, o, groups) in [(4, 6, 2), (5, 5, 5), (40, 40, 40), (3, 6, 3), (36, 40, 2), (6, 9, 1), (66, 34, 1)] {
        for dilation in [(1, 1), (2, 2), (1, 3), (3, 1)] {
            for (kernel, stride) in [((3, 3), (1, 1)), ((2, 3), (2, 1)), ((1, 2), (1, 1)), ((1, 1), (3, 2))] {
                for (padding, extra) in [((0, 0), (0, 0)), ((1, 2), (0, 0)), ((1, 0), (1, 1))] {
                    case += 1;
                    let window = Window { c, h: 8, w: 9, o, kernel, stride, padding, extra, dilation, groups };
                    for isa in isas() {
                        agrees(isa, &window, 1 + case as usize % 3, case);
                    }
                }
            }
        }
    }
}

#[test]
fn results_depend_on_nothing_but_the_inputs() {
    for (c, o) in [(3, 10), (32, 40)] {
        let window = Window { c, h: 9, w: 10, o, kernel: (3, 3), padding: (1, 1), ..Window::default() };
        let (m, inputs, outputs) = (3, 90 * c, 90 * o);
        let (x, dy, bias) = (filled(1, m * inputs), filled(2, m * outputs), filled(3, o));
        let mut panels = vec![0.0; panels_len(window.depth(), o)];
        panel::pack(rows(window.depth(), o, &filled(4, window.depth() * o)), &mut panels);
        for isa in isas() {
            let conv = plan(isa, window);
            let needs = conv.needs();
            // What was in the buffers before, and where they lie, must not matter.
            let run = |dirt: f32, shift: usize| {
                let buffer = |len: usize| vec![dirt; len + shift];
                let (mut packed, mut scratch) = (buffer(needs.packed), buffer(needs.scratch));
                let (packed, scratch) = (&mut packed[shift..], &mut scratch[shift..]);
                let (mut y, mut dx) = (buffer(m * outputs), buffer(m * inputs));
                let (mut dpanels, mut dbias) = (vec![0.0; panels.len()], vec![0.0; o]);
                let (y, dx) = (&mut y[shift..], &mut dx[shift..]);
                let (x, dy) = (images(m, (9, 10, c), &x), images(m, (9, 10, o), &dy));
                conv.prepare(&panels, packed);
                let weight = Weight { panels: &panels, packed };
                conv.forward(x, weight, Some(&bias), images_mut(m, (9, 10, o), y), scratch);
                let dx_out = Some(images_mut(m, (9, 10, c), dx));
                let gradients = ConvGradients { dx: dx_out, dpanels: &mut dpanels, dbias: Some(&mut dbias) };
                conv.backward(x, dy, weight, gradients, scratch);
                [y.to_vec(), dx.to_vec(), dpanels, dbias].concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            assert!(run(f32::NAN, 0) == run(1e30, 3), "{isa:?} {c} {o}");
        }
    }
}
