//! The f32 kernels at the shapes of the usual networks: first by divan (items are floating-point operations), then as a
//! table with the share of the multiply-add peak, measured in the same run. `cargo bench --bench kernel -- --table [NAME]`
//! prints only the table, of the cases whose name contains NAME.
//!
//! Convolutions are counted as direct ones, so that Winograd's may exceed the peak.

use ddl::arena::Buffer;
use ddl::kernel::view::{images, images_mut, rows, rows_mut, sequences, sequences_mut};
use ddl::kernel::{
    CellGradients, CellKind, CellWeights, ConvGradients, Kept, LinearMap, Precision, Real, Recurrence, Weight, Window,
    panels_len,
};
use divan::counter::ItemsCount;
use std::hint::black_box;
use std::time::Instant;

/// A kernel to run.
type Run = Box<dyn FnMut()>;

/// A kernel at a shape.
struct Case {
    name: String,
    /// Floating-point operations of a run; 0 for a kernel that is no product.
    flop: usize,
    /// Makes the operands.
    make: Box<dyn FnOnce() -> Run>,
}

fn filled(len: usize) -> Buffer<f32> {
    let mut buffer = Buffer::zeros(len);
    for (at, value) in buffer.iter_mut().enumerate() {
        *value = (at * 7919 % 2048) as f32 / 1024.0 - 1.0;
    }
    buffer
}

fn push(cases: &mut Vec<Case>, name: String, flop: usize, make: impl FnOnce() -> Run + 'static) {
    cases.push(Case { name, flop, make: Box::new(make) });
}

/// The three products of a linear layer.
fn linear(cases: &mut Vec<Case>, m: usize, k: usize, n: usize) {
    let flop = 2 * m * k * n;
    let planned = move || {
        let product = f32::linear(LinearMap { rows: m, inputs: k, outputs: n }, Precision::F32);
        let (panels, needs) = (filled(panels_len(k, n)), product.needs());
        let (mut packed, scratch) = (filled(needs.packed), filled(needs.scratch));
        product.prepare(&panels, &mut packed);
        (product, panels, packed, scratch)
    };
    push(cases, format!("linear forward m{m} k{k} n{n}"), flop, move || {
        let ((product, panels, packed, mut scratch), x, mut y) = (planned(), filled(m * k), filled(m * n));
        Box::new(move || {
            let weight = Weight { panels: &panels, packed: &packed };
            product.forward(rows(m, k, &x), weight, None, rows_mut(m, n, &mut y), &mut scratch);
        })
    });
    push(cases, format!("linear dweight m{m} k{k} n{n}"), flop, move || {
        let ((product, mut panels, _, mut scratch), x, dy) = (planned(), filled(m * k), filled(m * n));
        Box::new(move || product.weight_gradient(rows(m, k, &x), rows(m, n, &dy), true, &mut panels, &mut scratch))
    });
    push(cases, format!("linear dx m{m} k{k} n{n}"), flop, move || {
        let ((product, panels, packed, mut scratch), dy, mut dx) = (planned(), filled(m * n), filled(m * k));
        Box::new(move || {
            let weight = Weight { panels: &panels, packed: &packed };
            product.data_gradient(rows(m, n, &dy), weight, rows_mut(m, k, &mut dx), &mut scratch);
        })
    });
}

/// The passes of a convolution of m images; the first layer of a network needs no data gradient.
fn conv(cases: &mut Vec<Case>, m: usize, size: usize, c: usize, o: usize, padding: usize) {
    let window = Window { c, h: size, w: size, o, kernel: (3, 3), padding: (padding, padding), ..Window::default() };
    let (inputs, outputs) = (m * size * size * c, m * window.out_h() * window.out_w() * o);
    let flop = 2 * outputs * window.depth();
    let first = c <= 3;
    let name = |pass: &str| format!("conv {pass} m{m} {size}x{size} {c}->{o}");
    let planned = move || {
        let conv = f32::conv2d(window);
        let (panels, needs) = (filled(panels_len(window.depth(), o)), conv.needs());
        let (mut packed, scratch) = (filled(needs.packed), filled(needs.scratch));
        conv.prepare(&panels, &mut packed);
        (conv, panels, packed, scratch)
    };
    push(cases, name("forward"), flop, move || {
        let (conv, panels, packed, mut scratch) = planned();
        let (x, bias, mut y) = (filled(inputs), filled(o), filled(outputs));
        Box::new(move || {
            let weight = Weight { panels: &panels, packed: &packed };
            let y = images_mut(m, window.output(), &mut y);
            conv.forward(images(m, window.input(), &x), weight, Some(&bias), y, &mut scratch);
        })
    });
    push(cases, name("backward"), if first { flop } else { 2 * flop }, move || {
        let (conv, panels, packed, mut scratch) = planned();
        let (x, dy, mut dx) = (filled(inputs), filled(outputs), filled(inputs));
        let (mut dpanels, mut dbias) = (filled(panels.len()), filled(o));
        Box::new(move || {
            let weight = Weight { panels: &panels, packed: &packed };
            let dx = (!first).then(|| images_mut(m, window.input(), &mut dx));
            let gradients = ConvGradients { dx, dpanels: &mut dpanels, dbias: Some(&mut dbias) };
            let (x, dy) = (images(m, window.input(), &x), images(m, window.output(), &dy));
            conv.backward(x, dy, weight, gradients, &mut scratch);
        })
    });
    push(cases, name("prepare"), 0, move || {
        let (conv, panels, mut packed, _) = planned();
        Box::new(move || conv.prepare(&panels, &mut packed))
    });
}

/// One direction of a recurrent layer over 60 steps.
fn recurrent(cases: &mut Vec<Case>, kind: CellKind, m: usize, (inputs, hidden): (usize, usize), precision: Precision) {
    let r = Recurrence { kind, steps: 60, inputs, hidden, reverse: false, width: hidden, precision };
    let name = |pass: &str| format!("{kind:?} {pass} m{m} {inputs}->{hidden} x60 {precision:?}").to_lowercase();
    let n = kind.gates() * hidden;
    let flops = 2 * r.steps * m * (inputs + hidden) * n;
    let weights = move || (filled(panels_len(inputs, n)), filled(panels_len(hidden, n)));
    let buffers = move || [r.packed_len(), r.rows_len(m), r.cache_len(m), r.scratch_len(m)].map(filled);
    let shape = (r.steps + 1, m, r.row_len());
    push(cases, name("forward"), flops, move || {
        let ((ih, hh), [mut packed, mut z, mut cache, mut scratch]) = (weights(), buffers());
        let cell = f32::recurrent(r);
        Box::new(move || {
            cell.prepare(CellWeights { ih: &ih, hh: &hh, bias: None, packed: &[] }, &mut packed);
            let weights = CellWeights { ih: &ih, hh: &hh, bias: None, packed: &packed };
            let rows = sequences_mut(shape.0, shape.1, shape.2, &mut z);
            cell.forward(weights, rows, &mut cache, &mut scratch);
        })
    });
    push(cases, name("backward"), 2 * flops, move || {
        let ((ih, hh), [mut packed, mut z, mut cache, mut scratch]) = (weights(), buffers());
        let ((mut dih, mut dhh), [dy, mut dx]) = (weights(), [hidden, inputs].map(|n| filled(60 * m * n)));
        let cell = f32::recurrent(r);
        cell.prepare(CellWeights { ih: &ih, hh: &hh, bias: None, packed: &[] }, &mut packed);
        let weights = CellWeights { ih: &ih, hh: &hh, bias: None, packed: &packed };
        let rows = sequences_mut(shape.0, shape.1, shape.2, &mut z);
        cell.forward(weights, rows, &mut cache, &mut scratch);
        Box::new(move || {
            let weights = CellWeights { ih: &ih, hh: &hh, bias: None, packed: &packed };
            let kept = Kept { rows: sequences(shape.0, shape.1, shape.2, &z), cache: &cache };
            let dy = sequences(60, m, hidden, &dy);
            let dx = sequences_mut(60, m, inputs, &mut dx);
            let gradients = CellGradients { ih: &mut dih, hh: &mut dhh, bias: None };
            cell.backward(weights, kept, dy, Some(dx), gradients, &mut scratch);
        })
    });
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (m, k, n) in [(128, 2048, 512), (32, 2048, 512), (128, 512, 10), (64, 9216, 128), (16, 9216, 128)] {
        linear(&mut cases, m, k, n);
    }
    for (m, k, n) in [(64, 4096, 128), (16, 4096, 128), (960, 64, 256), (3840, 64, 256)] {
        linear(&mut cases, m, k, n);
    }
    for m in [16, 32, 128] {
        for (k, n) in [(60, 128), (128, 128), (128, 1)] {
            linear(&mut cases, m, k, n);
        }
    }
    conv(&mut cases, 64, 28, 1, 32, 0);
    conv(&mut cases, 8, 28, 1, 32, 0);
    conv(&mut cases, 8, 32, 3, 32, 1);
    conv(&mut cases, 64, 26, 32, 64, 0);
    conv(&mut cases, 128, 32, 3, 32, 1);
    conv(&mut cases, 128, 16, 32, 64, 1);
    conv(&mut cases, 128, 8, 64, 128, 1);
    conv(&mut cases, 16, 16, 32, 64, 1);
    conv(&mut cases, 64, 32, 32, 32, 1);
    conv(&mut cases, 64, 16, 64, 64, 1);
    conv(&mut cases, 64, 16, 16, 16, 1);
    conv(&mut cases, 64, 4, 64, 64, 1);
    conv(&mut cases, 64, 5, 64, 64, 1);
    conv(&mut cases, 16, 16, 128, 128, 1);
    conv(&mut cases, 16, 16, 256, 256, 1);
    for precision in [Precision::F32, Precision::Bf16] {
        for (m, sizes) in [(64, (64, 64)), (16, (64, 64)), (16, (1, 64))] {
            recurrent(&mut cases, CellKind::Lstm, m, sizes, precision);
        }
        recurrent(&mut cases, CellKind::Gru, 64, (64, 64), precision);
    }
    push(&mut cases, "bias gradient 131072x32".into(), 0, || {
        let product = f32::linear(LinearMap { rows: 131_072, inputs: 1, outputs: 32 }, Precision::F32);
        let (dy, mut sums) = (filled(131_072 * 32), filled(32));
        Box::new(move || product.bias_gradient(rows(131_072, 32, &dy), true, &mut sums))
    });
    for (name, function) in
        [("exp", f32::exp_slice as fn(&mut [f32])), ("tanh", f32::tanh_slice), ("sigmoid", f32::sigmoid_slice)]
    {
        push(&mut cases, format!("{name} 4096"), 0, move || {
            let (from, mut values) = (filled(4096), filled(4096));
            Box::new(move || {
                values.copy_from_slice(&from);
                function(&mut values);
            })
        });
    }
    cases
}

/// The multiply-add peak of this core, in operations a second, by chains of FMA in registers.
fn peak() -> f64 {
    const ROUNDS: usize = 1 << 20;
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        macro_rules! chains {
            ($features:literal, $set:ident, $fma:ident) => {{
                #[target_feature(enable = $features)]
                fn run(seed: f32) {
                    let (a, b) = ($set(seed), $set(1.0 - seed));
                    let mut chains = [$set(1.0); 12];
                    for _ in 0..ROUNDS {
                        for chain in &mut chains {
                            *chain = $fma(*chain, a, b);
                        }
                    }
                    black_box(chains);
                }
                // SAFETY: the caller of the macro saw the CPU's features.
                best_seconds(0.1, || unsafe { run(black_box(0.999)) })
            }};
        }
        if is_x86_feature_detected!("avx512f") {
            return (ROUNDS * 12 * 32) as f64 / chains!("avx512f", _mm512_set1_ps, _mm512_fmadd_ps);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return (ROUNDS * 12 * 16) as f64 / chains!("avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps);
        }
    }
    let seconds = best_seconds(0.1, || {
        let mut chains = [1f32; 32];
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                *chain = *chain * black_box(0.999) + 0.001;
            }
        }
        black_box(chains);
    });
    (ROUNDS * 32 * 2) as f64 / seconds
}

/// The shortest of many runs that take about `total` seconds together: other processes only ever add time.
fn best_seconds(total: f64, mut run: impl FnMut()) -> f64 {
    run();
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed().as_secs_f64() < total {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn table(filter: &str) {
    let peak = peak();
    println!("{}, multiply-add peak {:.1} GFLOP/s", ddl::kernel::isa().name(), peak * 1e-9);
    for case in cases().into_iter().filter(|case| case.name.contains(filter)) {
        let seconds = best_seconds(0.15, (case.make)());
        print!("{:<48} {:>9.1} µs", case.name, seconds * 1e6);
        if case.flop > 0 {
            let rate = case.flop as f64 / seconds;
            print!(" {:>7.1} GFLOP/s {:>4.0} %", rate * 1e-9, 100.0 * rate / peak);
        }
        println!();
    }
}

#[divan::bench(args = cases().into_iter().map(|case| case.name).collect::<Vec<_>>())]
fn kernel(bencher: divan::Bencher, name: &str) {
    if let Some(case) = cases().into_iter().find(|case| case.name == name) {
        bencher.counter(ItemsCount::new(case.flop)).bench_local((case.make)());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|argument| argument == "--table") {
        Some(at) => table(arguments.get(at + 1).filter(|name| !name.starts_with('-')).map_or("", |name| name)),
        None => {
            divan::main();
            if !arguments.iter().any(|argument| argument == "--test" || argument == "--list") {
                table("");
            }
        }
    }
}
