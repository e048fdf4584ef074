//! Naive kernels: what the fast ones must agree with. Frozen; never optimised.

use super::{Init, LstmGradients, LstmWeights, PANEL, Real, Recurrence, Window, panel_index};

/// See [`Real::product`].
pub fn product<T: Real>(
    m: usize,
    k: usize,
    n: usize,
    a: &[T],
    lda: usize,
    panels: &[T],
    init: Init<'_, T>,
    c: &mut [T],
    ldc: usize,
) {
    for row in 0..m {
        for col in 0..n {
            let mut sum = match init {
                Init::Zero => T::ZERO,
                Init::Bias(bias) => bias[col],
                Init::Add => c[row * ldc + col],
            };
            for depth in 0..k {
                sum += a[row * lda + depth] * panels[panel_index(k, depth, col)];
            }
            c[row * ldc + col] = sum;
        }
    }
}

/// See [`Real::product_transposed`].
pub fn product_transposed<T: Real>(m: usize, n: usize, k: usize, a: &[T], panels: &[T], c: &mut [T]) {
    for row in 0..m {
        for depth in 0..k {
            c[row * k + depth] = (0..n).map(|col| a[row * n + col] * panels[panel_index(k, depth, col)]).sum();
        }
    }
}

/// See [`Real::outer`].
pub fn outer<T: Real>(m: usize, k: usize, n: usize, a: &[T], lda: usize, b: &[T], ldb: usize, panels: &mut [T]) {
    for depth in 0..k {
        for col in 0..n {
            let sum: T = (0..m).map(|row| a[row * lda + depth] * b[row * ldb + col]).sum();
            panels[panel_index(k, depth, col)] += sum;
        }
    }
}

/// See [`Real::pack`].
pub fn pack<T: Real>(k: usize, n: usize, b: &[T], row: usize, column: usize, panels: &mut [T]) {
    for col in 0..n.next_multiple_of(PANEL) {
        for depth in 0..k {
            panels[panel_index(k, depth, col)] = if col < n { b[depth * row + col * column] } else { T::ZERO };
        }
    }
}

/// See [`Real::transpose_panels`].
pub fn transpose_panels<T: Real>(k: usize, n: usize, panels: &[T], transposed: &mut [T]) {
    for depth in 0..k.next_multiple_of(PANEL) {
        for col in 0..n {
            let value = if depth < k { panels[panel_index(k, depth, col)] } else { T::ZERO };
            transposed[panel_index(n, col, depth)] = value;
        }
    }
}

/// See [`Real::transpose`].
pub fn transpose<T: Real>(rows: usize, columns: usize, from: &[T], to: &mut [T]) {
    for (from, to) in from.chunks_exact(rows * columns).zip(to.chunks_exact_mut(rows * columns)) {
        for (index, value) in from.iter().enumerate() {
            to[index % columns * rows + index / columns] = *value;
        }
    }
}

/// See [`Real::column_sums`].
pub fn column_sums<T: Real>(m: usize, n: usize, a: &[T], lda: usize, sums: &mut [T]) {
    for row in 0..m {
        for col in 0..n {
            sums[col] += a[row * lda + col];
        }
    }
}

/// Calls `visit(output pixel, input pixel, tap)` for every tap of every output pixel that lies inside the image.
fn for_each_tap(window: &Window, m: usize, mut visit: impl FnMut(usize, usize, usize)) {
    let (out_h, out_w) = (window.out_h(), window.out_w());
    for image in 0..m {
        for oh in 0..out_h {
            for ow in 0..out_w {
                for kh in 0..window.kernel.0 {
                    for kw in 0..window.kernel.1 {
                        let ih = (oh * window.stride.0 + kh).wrapping_sub(window.padding.0);
                        let iw = (ow * window.stride.1 + kw).wrapping_sub(window.padding.1);
                        if ih < window.h && iw < window.w {
                            let output = (image * out_h + oh) * out_w + ow;
                            visit(output, (image * window.h + ih) * window.w + iw, kh * window.kernel.1 + kw);
                        }
                    }
                }
            }
        }
    }
}

/// See [`Real::conv2d_forward`].
pub fn conv2d_forward<T: Real>(window: &Window, m: usize, x: &[T], panels: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let Window { c, o, .. } = *window;
    for pixel in y.chunks_exact_mut(o).take(m * window.out_h() * window.out_w()) {
        match bias {
            Some(bias) => pixel.copy_from_slice(bias),
            None => pixel.fill(T::ZERO),
        }
    }
    for_each_tap(window, m, |output, input, tap| {
        for col in 0..o {
            for channel in 0..c {
                y[output * o + col] +=
                    x[input * c + channel] * panels[panel_index(window.depth(), tap * c + channel, col)];
            }
        }
    });
}

/// See [`Real::conv2d_backward`].
pub fn conv2d_backward<T: Real>(
    window: &Window,
    m: usize,
    x: &[T],
    dy: &[T],
    panels: &[T],
    dx: Option<&mut [T]>,
    dpanels: &mut [T],
    dbias: Option<&mut [T]>,
) {
    let Window { c, o, .. } = *window;
    if let Some(dbias) = dbias {
        column_sums(m * window.out_h() * window.out_w(), o, dy, o, dbias);
    }
    for_each_tap(window, m, |output, input, tap| {
        for col in 0..o {
            for channel in 0..c {
                dpanels[panel_index(window.depth(), tap * c + channel, col)] +=
                    x[input * c + channel] * dy[output * o + col];
            }
        }
    });
    if let Some(dx) = dx {
        dx[..m * window.h * window.w * c].fill(T::ZERO);
        for_each_tap(window, m, |output, input, tap| {
            for col in 0..o {
                for channel in 0..c {
                    dx[input * c + channel] +=
                        dy[output * o + col] * panels[panel_index(window.depth(), tap * c + channel, col)];
                }
            }
        });
    }
}

/// One LSTM cell over `m` rows: `gates` (M, 4H) are pre-activations in the order i, f, g, o and become activated;
/// c = f·c_prev + i·g, h = o·tanh(c), and `tanh_c` keeps tanh(c).
fn lstm_cell_forward<T: Real>(
    m: usize,
    hidden: usize,
    gates: &mut [T],
    c_prev: &[T],
    c: &mut [T],
    tanh_c: &mut [T],
    h: &mut [T],
) {
    for row in 0..m {
        let gates = &mut gates[row * 4 * hidden..][..4 * hidden];
        for unit in 0..hidden {
            let at = row * hidden + unit;
            let i = gates[unit].sigmoid();
            let f = gates[hidden + unit].sigmoid();
            let g = gates[2 * hidden + unit].tanh();
            let o = gates[3 * hidden + unit].sigmoid();
            c[at] = f * c_prev[at] + i * g;
            tanh_c[at] = c[at].tanh();
            h[at] = o * tanh_c[at];
            (gates[unit], gates[hidden + unit], gates[2 * hidden + unit], gates[3 * hidden + unit]) = (i, f, g, o);
        }
    }
}

/// From `dh` and `dc` (gradient of c_t from the future, overwritten with that of c_{t-1}), `dgates` (M, 4H): the
/// gradients of the pre-activations.
fn lstm_cell_backward<T: Real>(
    m: usize,
    hidden: usize,
    gates: &[T],
    c_prev: &[T],
    tanh_c: &[T],
    dh: &[T],
    dc: &mut [T],
    dgates: &mut [T],
) {
    for row in 0..m {
        let gates = &gates[row * 4 * hidden..][..4 * hidden];
        let dgates = &mut dgates[row * 4 * hidden..][..4 * hidden];
        for unit in 0..hidden {
            let at = row * hidden + unit;
            let (i, f) = (gates[unit], gates[hidden + unit]);
            let (g, o) = (gates[2 * hidden + unit], gates[3 * hidden + unit]);
            let dcell = dc[at] + dh[at] * o * (T::ONE - tanh_c[at] * tanh_c[at]);
            dgates[unit] = dcell * g * i * (T::ONE - i);
            dgates[hidden + unit] = dcell * c_prev[at] * f * (T::ONE - f);
            dgates[2 * hidden + unit] = dcell * i * (T::ONE - g * g);
            dgates[3 * hidden + unit] = dh[at] * tanh_c[at] * o * (T::ONE - o);
            dc[at] = dcell * f;
        }
    }
}

/// A direction's cache as the naive passes use it: gates (T, M, 4H), cell states (T + 1, M, H) and their tanh (T, M, H).
fn lstm_cache_at(r: &Recurrence, m: usize) -> (usize, usize) {
    (4 * r.steps * m * r.hidden, (5 * r.steps + 1) * m * r.hidden)
}

/// See [`Real::lstm_forward`].
pub fn lstm_forward<T: Real>(r: &Recurrence, m: usize, weights: &LstmWeights<'_, T>, z: &mut [T], cache: &mut [T]) {
    let (hidden, row, n) = (r.hidden, r.row_len(), 4 * r.hidden);
    let (at_c, at_tanh) = lstm_cache_at(r, m);
    let (gates, rest) = cache.split_at_mut(at_c);
    let (c, tanh_c) = rest.split_at_mut(at_tanh - at_c);
    let block = m * hidden;
    c[..block].fill(T::ZERO);
    for z in z.chunks_exact_mut(row).take(m) {
        z[..hidden].fill(T::ZERO);
    }
    let mut h = vec![T::ZERO; block];
    for step in 0..r.steps {
        let (now, next) = z[step * m * row..].split_at_mut(m * row);
        let gates = &mut gates[step * m * n..][..m * n];
        for gates in gates.chunks_exact_mut(n) {
            for unit in 0..n {
                gates[unit] = weights.bias.map_or(T::ZERO, |(ih, hh)| ih[unit] + hh[unit]);
            }
        }
        product(m, hidden, n, now, row, weights.hh, Init::Add, gates, n);
        product(m, r.inputs, n, &now[hidden..], row, weights.ih, Init::Add, gates, n);
        let (c_prev, c) = c[step * block..][..2 * block].split_at_mut(block);
        lstm_cell_forward(m, hidden, gates, c_prev, c, &mut tanh_c[step * block..][..block], &mut h);
        for (z, h) in next.chunks_exact_mut(row).zip(h.chunks_exact(hidden)) {
            z[..hidden].copy_from_slice(h);
        }
    }
}

/// See [`Real::lstm_backward`].
pub fn lstm_backward<T: Real>(
    r: &Recurrence,
    m: usize,
    weights: &LstmWeights<'_, T>,
    z: &[T],
    cache: &[T],
    dy: &[T],
    mut dx: Option<&mut [T]>,
    gradients: LstmGradients<'_, T>,
) {
    let (hidden, row, n, block) = (r.hidden, r.row_len(), 4 * r.hidden, m * r.hidden);
    let (at_c, at_tanh) = lstm_cache_at(r, m);
    let LstmGradients { ih, hh, mut bias } = gradients;
    let (mut dh, mut dc, mut dgates) = (vec![T::ZERO; block], vec![T::ZERO; block], vec![T::ZERO; m * n]);
    for step in (0..r.steps).rev() {
        let time = r.time(step);
        for sample in 0..m {
            for unit in 0..hidden {
                dh[sample * hidden + unit] += dy[(time * m + sample) * r.width + r.column() + unit];
            }
        }
        let (gates, c_prev) = (&cache[step * m * n..][..m * n], &cache[at_c + step * block..][..block]);
        let tanh_c = &cache[at_tanh + step * block..][..block];
        lstm_cell_backward(m, hidden, gates, c_prev, tanh_c, &dh, &mut dc, &mut dgates);
        let z = &z[step * m * row..];
        outer(m, hidden, n, z, row, &dgates, n, hh);
        outer(m, r.inputs, n, &z[hidden..], row, &dgates, n, ih);
        if let Some((ih, hh)) = &mut bias {
            column_sums(m, n, &dgates, n, ih);
            column_sums(m, n, &dgates, n, hh);
        }
        let back = |panels: &[T], inputs: usize, sample: usize, input: usize| -> T {
            (0..n).map(|gate| dgates[sample * n + gate] * panels[panel_index(inputs, input, gate)]).sum()
        };
        for sample in 0..m {
            for unit in 0..hidden {
                dh[sample * hidden + unit] = back(weights.hh, hidden, sample, unit);
            }
            for input in 0..r.inputs {
                if let Some(dx) = &mut dx {
                    let dx = &mut dx[(time * m + sample) * r.inputs + input];
                    *dx = back(weights.ih, r.inputs, sample, input) + if r.reverse { *dx } else { T::ZERO };
                }
            }
        }
    }
}
