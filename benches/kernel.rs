//! The f32 kernels at the shapes of the usual networks: first by divan (items are floating-point operations), then as a
//! table with the share of the multiply-add peak, measured in the same run. `cargo bench --bench kernel -- --table [NAME]`
//! prints only the table, of the cases whose name contains NAME.
//!
//! Convolutions are counted as direct ones, so that Winograd's may exceed the peak.

use ddl::arena::Buffer;
use ddl::kernel::{Init, LstmGradients, LstmWeights, Real, Recurrence, Window, panels_len};
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
    push(cases, format!("linear forward m{m} k{k} n{n}"), flop, move || {
        let (x, panels, mut y) = (filled(m * k), filled(panels_len(k, n)), filled(m * n));
        Box::new(move || f32::product(m, k, n, &x, k, &panels, Init::Zero, &mut y, n))
    });
    push(cases, format!("linear dweight m{m} k{k} n{n}"), flop, move || {
        let (x, dy, mut panels) = (filled(m * k), filled(m * n), filled(panels_len(k, n)));
        Box::new(move || f32::outer(m, k, n, &x, k, &dy, n, true, &mut panels))
    });
    push(cases, format!("linear dx m{m} k{k} n{n}"), flop, move || {
        let (dy, panels, mut dx) = (filled(m * n), filled(panels_len(k, n)), filled(m * k));
        let mut scratch = filled(f32::product_transposed_scratch(n));
        Box::new(move || f32::product_transposed(m, n, k, &dy, &panels, &mut dx, &mut scratch))
    });
}

/// The passes of a convolution of m images; the first layer of a network needs no data gradient.
fn conv(cases: &mut Vec<Case>, m: usize, size: usize, c: usize, o: usize, padding: usize) {
    let window = Window { c, h: size, w: size, o, kernel: (3, 3), stride: (1, 1), padding: (padding, padding) };
    let (inputs, outputs) = (m * size * size * c, m * window.out_h() * window.out_w() * o);
    let flop = 2 * outputs * window.depth();
    let panels = panels_len(window.depth(), o);
    let first = c <= 3;
    let name = |pass: &str| format!("conv {pass} m{m} {size}x{size} {c}->{o}");
    let working = move || {
        let needs = f32::conv2d_needs(&window);
        [needs.packed, needs.scratch].map(Buffer::<f32>::zeros)
    };
    push(cases, name("forward"), flop, move || {
        let (x, panels, bias, mut y) = (filled(inputs), filled(panels), filled(o), filled(outputs));
        let [mut packed, mut scratch] = working();
        f32::conv2d_prepare(&window, &panels, &mut packed);
        Box::new(move || f32::conv2d_forward(&window, m, &x, &panels, &packed, Some(&bias), &mut y, &mut scratch))
    });
    push(cases, name("backward"), if first { flop } else { 2 * flop }, move || {
        let (x, dy, panels, mut dx) = (filled(inputs), filled(outputs), filled(panels), filled(inputs));
        let [mut packed, mut scratch] = working();
        let (mut dpanels, mut dbias) = (filled(panels.len()), filled(o));
        f32::conv2d_prepare(&window, &panels, &mut packed);
        let mut y = filled(outputs);
        f32::conv2d_forward(&window, m, &x, &panels, &packed, None, &mut y, &mut scratch);
        Box::new(move || {
            let dx = (!first).then_some(&mut dx[..]);
            let (dpanels, dbias) = (&mut dpanels[..], Some(&mut dbias[..]));
            f32::conv2d_backward(&window, m, &x, &dy, &panels, &packed, dx, dpanels, dbias, &mut scratch)
        })
    });
    push(cases, name("prepare"), 0, move || {
        let (panels, [mut packed, ..]) = (filled(panels), working());
        Box::new(move || f32::conv2d_prepare(&window, &panels, &mut packed))
    });
}

/// One direction of an LSTM over 60 steps.
fn lstm(cases: &mut Vec<Case>, m: usize, inputs: usize, hidden: usize, bf16: bool) {
    let r = Recurrence { steps: 60, inputs, hidden, reverse: false, width: hidden, bf16 };
    let name = |pass: &str| format!("lstm {pass} m{m} {inputs}->{hidden} x60{}", if bf16 { " bf16" } else { "" });
    let flops = 2 * r.steps * m * (inputs + hidden) * 4 * hidden;
    let weights = move || (filled(panels_len(inputs, 4 * hidden)), filled(panels_len(hidden, 4 * hidden)));
    let buffers = move || [r.packed_len(), r.rows_len(m), r.cache_len(m), r.scratch_len(m)].map(filled);
    push(cases, name("forward"), flops, move || {
        let ((ih, hh), [mut packed, mut z, mut cache, mut scratch]) = (weights(), buffers());
        Box::new(move || {
            let weights = LstmWeights { ih: &ih, hh: &hh, bias: None };
            f32::lstm_prepare(&r, &weights, &mut packed);
            f32::lstm_forward(&r, m, &weights, &packed, &mut z, &mut cache, &mut scratch);
        })
    });
    push(cases, name("backward"), 2 * flops, move || {
        let ((ih, hh), [mut packed, mut z, mut cache, mut scratch]) = (weights(), buffers());
        let ((mut dih, mut dhh), [dy, mut dx]) = (weights(), [hidden, inputs].map(|n| filled(60 * m * n)));
        f32::lstm_prepare(&r, &LstmWeights { ih: &ih, hh: &hh, bias: None }, &mut packed);
        f32::lstm_forward(
            &r,
            m,
            &LstmWeights { ih: &ih, hh: &hh, bias: None },
            &packed,
            &mut z,
            &mut cache,
            &mut scratch,
        );
        Box::new(move || {
            let weights = LstmWeights { ih: &ih, hh: &hh, bias: None };
            let gradients = LstmGradients { ih: &mut dih, hh: &mut dhh, bias: None };
            f32::lstm_backward(&r, m, &weights, &packed, &z, &cache, &dy, Some(&mut dx), gradients, &mut scratch);
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
    for bf16 in [false, true] {
        lstm(&mut cases, 64, 64, 64, bf16);
        lstm(&mut cases, 16, 64, 64, bf16);
        lstm(&mut cases, 16, 1, 64, bf16);
    }
    push(&mut cases, "transpose panels 2048x512".into(), 0, || {
        let (panels, mut transposed) = (filled(panels_len(2048, 512)), filled(panels_len(512, 2048)));
        Box::new(move || f32::transpose_panels(2048, 512, &panels, &mut transposed))
    });
    push(&mut cases, "column sums 131072x32".into(), 0, || {
        let (dy, mut sums) = (filled(131_072 * 32), filled(32));
        Box::new(move || f32::column_sums(131_072, 32, &dy, 32, &mut sums))
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
