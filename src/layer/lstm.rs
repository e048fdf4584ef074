//! `lstm`: stacked long short-term memory, as torch.nn.LSTM with batch_first (Hochreiter and Schmidhuber, 1997).
//!
//! With gates i, f, g, o from W_ih·x_t + b_ih + W_hh·h_{t-1} + b_hh: c_t = σ(f)·c_{t-1} + σ(i)·tanh(g),
//! h_t = σ(o)·tanh(c_t). Inside, everything is time-major: (T, M, ...), so that one step is one dense block.

use super::dropout::{apply, fill_keep, keep_scale, probability};
use super::registry::{Entry, Example, Place, check_size, wrong_input};
use super::stack::disjoint;
use super::{Backward, Forward, Initial, Layer, Mode, Plan};
use crate::arena::Storage;
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Init, Real, panels_len};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::ops::Range;

pub(super) const ENTRY: Entry = Entry {
    name: "lstm",
    about: "stacked LSTM over a sequence; gives the last hidden state (both directions' last ones side by side)",
    keys: "hidden_size, num_layers = 1, bias = true, dropout = 0 (between layers), bidirectional = false, \
           return_sequences = false (true: the hidden state of every step)",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "hidden_size = 3", input: Shape::Sequence { t: 4, f: 2 } },
        Example {
            keys: "hidden_size = 3\nnum_layers = 2\nreturn_sequences = true\nbias = false",
            input: Shape::Sequence { t: 3, f: 2 },
        },
        Example {
            keys: "hidden_size = 2\nnum_layers = 2\nbidirectional = true\ndropout = 0.5",
            input: Shape::Sequence { t: 3, f: 2 },
        },
        Example {
            keys: "hidden_size = 2\nbidirectional = true\nreturn_sequences = true",
            input: Shape::Sequence { t: 3, f: 3 },
        },
    ],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    hidden_size: usize,
    #[serde(default = "one")]
    num_layers: usize,
    #[serde(default = "yes")]
    bias: bool,
    #[serde(default)]
    dropout: f64,
    #[serde(default)]
    bidirectional: bool,
    #[serde(default)]
    return_sequences: bool,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

/// One direction of one layer: its parameters and where its sequences lie in the cache.
struct Cell {
    reverse: bool,
    /// Column of the layer's output where its hidden state goes.
    column: usize,
    weight_ih: Range<usize>,
    weight_hh: Range<usize>,
    bias: Option<(Range<usize>, Range<usize>)>,
    /// Transposed panels, in `packed`.
    packed_ih: Range<usize>,
    packed_hh: Range<usize>,
    /// (T, M, 4H) activated gates, (T + 1, M, H) cell and hidden states from zero on, (T, M, H) tanh of the cell state;
    /// all in the order in which the direction goes.
    gates: Range<usize>,
    c: Range<usize>,
    h: Range<usize>,
    tanh_c: Range<usize>,
}

/// One layer: its input and its one or two directions.
struct Level {
    inputs: usize,
    /// (T, M, inputs), in the cache.
    x: Range<usize>,
    cells: Vec<Cell>,
    /// Number of the random stream.
    number: u32,
}

struct Lstm {
    plan: Plan,
    steps: usize,
    hidden: usize,
    /// Hidden states side by side: H, or 2H.
    width: usize,
    levels: Vec<Level>,
    /// (T, M, width) output of the last level, in the cache.
    output: Range<usize>,
    p: f64,
    return_sequences: bool,
    /// Dropout after each level but the last: (M, T, width) each.
    keep: Vec<Vec<u8>>,
    /// Backward's parts of the scratch.
    dgates: Range<usize>,
    dy: Range<usize>,
    dx: Range<usize>,
    dh: Range<usize>,
    dc: Range<usize>,
    bias_sum: Range<usize>,
}

/// Takes consecutive aligned ranges.
fn take(total: &mut usize, len: usize) -> Range<usize> {
    let start = *total;
    *total = (start + len).next_multiple_of(16);
    start..start + len
}

fn build<T: Real>(component: &Component, place: Place) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    let Shape::Sequence { t: steps, f: features } = place.input else {
        let mend = "use it on series data, or with return_sequences = true in the lstm before it";
        return Err(wrong_input(component, place.input, "a sequence", mend));
    };
    let (hidden, m) = (keys.hidden_size, place.m);
    if hidden == 0 {
        return Err(component.error("hidden_size", "is 0", "give at least 1"));
    }
    if keys.num_layers == 0 {
        return Err(component.error("num_layers", "is 0", "give at least 1"));
    }
    let cells = [keys.num_layers, if keys.bidirectional { 2 } else { 1 }];
    check_size::<T>(component, "hidden_size", &[4, hidden, features.max(hidden).max(3 * m * steps), cells[1]])?;
    check_size::<T>(component, "num_layers", &[cells[0], cells[1], 4, hidden, hidden.max(2 * m * steps)])?;
    let p = probability(component, "dropout", keys.dropout)?;
    let directions = if keys.bidirectional { 2 } else { 1 };
    let width = directions * hidden;
    let output =
        if keys.return_sequences { Shape::Sequence { t: steps, f: width } } else { Shape::Vector { n: width } };
    let mut plan = Plan::new(output);
    let bound = Initial::Uniform(1.0 / (hidden as f64).sqrt());
    let (mut cache, mut packed) = (0, 0);
    let mut levels = Vec::with_capacity(keys.num_layers);
    for level in 0..keys.num_layers {
        let inputs = if level == 0 { features } else { width };
        let x = take(&mut cache, steps * m * inputs);
        let mut cells = Vec::with_capacity(directions);
        for direction in 0..directions {
            let suffix = format!("l{level}{}", if direction == 1 { "_reverse" } else { "" });
            let mut weight = |name: &str, columns: usize| {
                plan.parameter(&format!("{name}_{suffix}"), &[4 * hidden, columns], Storage::Panels, bound)
            };
            let (weight_ih, weight_hh) = (weight("weight_ih", inputs), weight("weight_hh", hidden));
            let mut bias =
                |name: &str| plan.parameter(&format!("{name}_{suffix}"), &[4 * hidden], Storage::Plain, bound);
            let bias = keys.bias.then(|| (bias("bias_ih"), bias("bias_hh")));
            cells.push(Cell {
                reverse: direction == 1,
                column: direction * hidden,
                weight_ih,
                weight_hh,
                bias,
                packed_ih: take(&mut packed, panels_len(4 * hidden, inputs)),
                packed_hh: take(&mut packed, panels_len(4 * hidden, hidden)),
                gates: take(&mut cache, steps * m * 4 * hidden),
                c: take(&mut cache, (steps + 1) * m * hidden),
                h: take(&mut cache, (steps + 1) * m * hidden),
                tanh_c: take(&mut cache, steps * m * hidden),
            });
        }
        plan.flops += (2 * steps * directions * 4 * hidden * (inputs + hidden)) as u64;
        levels.push(Level { inputs, x, cells, number: place.number.wrapping_mul(16).wrapping_add(level as u32) });
    }
    let output = take(&mut cache, steps * m * width);
    let (mut scratch, widest) = (0, width.max(features));
    let lstm = Lstm {
        steps,
        hidden,
        width,
        levels,
        output,
        p,
        return_sequences: keys.return_sequences,
        keep: vec![vec![0; if p > 0.0 { m * steps * width } else { 0 }]; keys.num_layers - 1],
        dgates: take(&mut scratch, steps * m * 4 * hidden),
        dy: take(&mut scratch, steps * m * widest),
        dx: take(&mut scratch, steps * m * widest),
        dh: take(&mut scratch, m * hidden),
        dc: take(&mut scratch, m * hidden),
        bias_sum: take(&mut scratch, 4 * hidden),
        plan: Plan { cache, packed, scratch, ..plan },
    };
    Ok(Box::new(lstm))
}

/// From (outer, inner, f) to (inner, outer, f).
fn swap_axes<T: Copy>(outer: usize, inner: usize, f: usize, from: &[T], to: &mut [T]) {
    for i in 0..outer {
        for j in 0..inner {
            to[(j * outer + i) * f..][..f].copy_from_slice(&from[(i * inner + j) * f..][..f]);
        }
    }
}

impl Cell {
    /// Runs over all steps from `x` (T, M, inputs) in the cache and writes h_t into columns of `y` (T, M, width).
    fn forward<T: Real>(&self, lstm: &Lstm, level: &Level, io: &mut Forward<'_, T>, y: Range<usize>) {
        let (m, steps, hidden) = (io.m, lstm.steps, lstm.hidden);
        let ranges = [level.x.clone(), self.gates.clone(), self.c.clone(), self.h.clone(), self.tanh_c.clone(), y];
        let [x, gates, c, h, tanh_c, y] = disjoint(io.cache, ranges);
        let init = match &self.bias {
            Some((ih, hh)) => {
                let sum = &mut io.scratch[lstm.bias_sum.clone()];
                for ((sum, ih), hh) in sum.iter_mut().zip(&io.params[ih.clone()]).zip(&io.params[hh.clone()]) {
                    *sum = *ih + *hh;
                }
                Init::Bias(&*sum)
            }
            None => Init::Zero,
        };
        let n = 4 * hidden;
        T::product(steps * m, level.inputs, n, x, level.inputs, &io.params[self.weight_ih.clone()], init, gates, n);
        let recurrent = &io.params[self.weight_hh.clone()];
        let block = m * hidden;
        c[..block].fill(T::ZERO);
        h[..block].fill(T::ZERO);
        for step in 0..steps {
            let t = if self.reverse { steps - 1 - step } else { step };
            let gates = &mut gates[t * m * n..][..m * n];
            let (h_prev, h) = h[step * block..][..2 * block].split_at_mut(block);
            let (c_prev, c) = c[step * block..][..2 * block].split_at_mut(block);
            if step > 0 {
                T::product(m, hidden, n, h_prev, hidden, recurrent, Init::Add, gates, n);
            }
            T::lstm_cell_forward(m, hidden, gates, c_prev, c, &mut tanh_c[step * block..][..block], h);
            for (h, y) in h.chunks_exact(hidden).zip(y[t * m * lstm.width..].chunks_exact_mut(lstm.width)) {
                y[self.column..][..hidden].copy_from_slice(h);
            }
        }
    }

    /// From `dy` (T, M, width) in the scratch adds to the gradients of the parameters and, where asked, to `dx`.
    fn backward<T: Real>(&self, lstm: &Lstm, level: &Level, io: &mut Backward<'_, T>, want_dx: bool) {
        let (m, steps, hidden) = (io.m, lstm.steps, lstm.hidden);
        let (n, block) = (4 * hidden, m * hidden);
        let cache = &*io.cache;
        let (x, gates) = (&cache[level.x.clone()], &cache[self.gates.clone()]);
        let (c, h) = (&cache[self.c.clone()], &cache[self.h.clone()]);
        let tanh_c = &cache[self.tanh_c.clone()];
        let ranges = [lstm.dgates.clone(), lstm.dy.clone(), lstm.dx.clone(), lstm.dh.clone(), lstm.dc.clone()];
        let [dgates, dy, dx, dh, dc] = disjoint(io.scratch, ranges);
        let (dh, dc) = (&mut dh[..block], &mut dc[..block]);
        dh.fill(T::ZERO);
        dc.fill(T::ZERO);
        for step in (0..steps).rev() {
            let t = if self.reverse { steps - 1 - step } else { step };
            for (dh, dy) in dh.chunks_exact_mut(hidden).zip(dy[t * m * lstm.width..].chunks_exact(lstm.width)) {
                for (dh, dy) in dh.iter_mut().zip(&dy[self.column..]) {
                    *dh += *dy;
                }
            }
            let dgates = &mut dgates[t * m * n..][..m * n];
            let (c_prev, tanh_c) = (&c[step * block..][..block], &tanh_c[step * block..][..block]);
            T::lstm_cell_backward(m, hidden, &gates[t * m * n..][..m * n], c_prev, tanh_c, dh, dc, dgates);
            if step > 0 {
                let transposed = &io.packed[self.packed_hh.clone()];
                T::product(m, n, hidden, dgates, n, transposed, Init::Zero, dh, hidden);
            }
        }
        T::outer(steps * m, level.inputs, n, x, level.inputs, dgates, n, &mut io.dparams[self.weight_ih.clone()]);
        let dweight_hh = &mut io.dparams[self.weight_hh.clone()];
        if self.reverse {
            // Here h lies in the order of steps, but the gates in that of time.
            for step in 1..steps {
                let t = steps - 1 - step;
                T::outer(m, hidden, n, &h[step * block..], hidden, &dgates[t * m * n..], n, dweight_hh);
            }
        } else if steps > 1 {
            T::outer((steps - 1) * m, hidden, n, &h[block..], hidden, &dgates[m * n..], n, dweight_hh);
        }
        if let Some((ih, hh)) = &self.bias {
            T::column_sums(steps * m, n, dgates, n, &mut io.dparams[ih.clone()]);
            T::column_sums(steps * m, n, dgates, n, &mut io.dparams[hh.clone()]);
        }
        if want_dx {
            let init = if self.reverse { Init::Add } else { Init::Zero };
            let transposed = &io.packed[self.packed_ih.clone()];
            T::product(steps * m, n, level.inputs, dgates, n, transposed, init, dx, level.inputs);
        }
    }
}

impl Lstm {
    /// Dropout of the elements (T, M, width) by `keep` (M, T, width).
    fn drop_out<T: Real>(&self, keep: &[u8], m: usize, values: &mut [T]) {
        let scale = T::of(keep_scale(self.p));
        for t in 0..self.steps {
            for sample in 0..m {
                let keep = &keep[(sample * self.steps + t) * self.width..][..self.width];
                apply(keep, scale, &mut values[(t * m + sample) * self.width..][..self.width]);
            }
        }
    }

    /// Whether a dropout follows this level.
    fn drops(&self, level: usize, mode: Mode) -> bool {
        self.p > 0.0 && level + 1 < self.levels.len() && mode != Mode::Eval
    }
}

impl<T: Real> Layer<T> for Lstm {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn prepare(&mut self, params: &[T], packed: &mut [T]) {
        let n = 4 * self.hidden;
        for level in &self.levels {
            for cell in &level.cells {
                let (ih, hh) = (&params[cell.weight_ih.clone()], &params[cell.weight_hh.clone()]);
                T::transpose_panels(level.inputs, n, ih, &mut packed[cell.packed_ih.clone()]);
                T::transpose_panels(self.hidden, n, hh, &mut packed[cell.packed_hh.clone()]);
            }
        }
    }

    fn forward(&mut self, mut io: Forward<'_, T>) {
        let (m, steps, width) = (io.m, self.steps, self.width);
        let first = &self.levels[0];
        swap_axes(m, steps, first.inputs, io.x, &mut io.cache[first.x.clone()]);
        for (index, level) in self.levels.iter().enumerate() {
            let y = self.levels.get(index + 1).map_or(self.output.clone(), |next| next.x.clone());
            for cell in &level.cells {
                cell.forward(self, level, &mut io, y.clone());
            }
            if self.drops(index, io.mode) {
                let mut keep = std::mem::take(&mut self.keep[index]);
                for (sample, keep) in keep.chunks_exact_mut(steps * width).take(m).enumerate() {
                    if let Some(stream) = io.mode.stream(sample, level.number) {
                        fill_keep(&stream, self.p, keep);
                    }
                }
                self.drop_out(&keep, m, &mut io.cache[y]);
                self.keep[index] = keep;
            }
        }
        let output = &io.cache[self.output.clone()];
        if self.return_sequences {
            swap_axes(steps, m, width, output, io.y);
            return;
        }
        for cell in &self.levels[self.levels.len() - 1].cells {
            let t = if cell.reverse { 0 } else { steps - 1 };
            for (sample, y) in io.y.chunks_exact_mut(width).enumerate() {
                let at = (t * m + sample) * width + cell.column;
                y[cell.column..][..self.hidden].copy_from_slice(&output[at..][..self.hidden]);
            }
        }
    }

    fn backward(&mut self, mut io: Backward<'_, T>) {
        let (m, steps, width) = (io.m, self.steps, self.width);
        let dy = &mut io.scratch[self.dy.clone()];
        if self.return_sequences {
            swap_axes(m, steps, width, io.dy, dy);
        } else {
            dy[..steps * m * width].fill(T::ZERO);
            for cell in &self.levels[self.levels.len() - 1].cells {
                let t = if cell.reverse { 0 } else { steps - 1 };
                for (sample, given) in io.dy.chunks_exact(width).enumerate() {
                    let at = (t * m + sample) * width + cell.column;
                    dy[at..][..self.hidden].copy_from_slice(&given[cell.column..][..self.hidden]);
                }
            }
        }
        for (index, level) in self.levels.iter().enumerate().rev() {
            if self.drops(index, io.mode) {
                self.drop_out(&self.keep[index], m, &mut io.scratch[self.dy.clone()]);
            }
            let want_dx = index > 0 || io.dx.is_some();
            for cell in &level.cells {
                cell.backward(self, level, &mut io, want_dx);
            }
            if index > 0 {
                io.scratch.copy_within(self.dx.start..self.dx.start + steps * m * width, self.dy.start);
            }
        }
        if let Some(dx) = &mut io.dx {
            swap_axes(steps, m, self.levels[0].inputs, &io.scratch[self.dx.clone()], dx);
        }
    }
}
