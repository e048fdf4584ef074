//! `lstm`: stacked long short-term memory, as torch.nn.LSTM with batch_first (Hochreiter and Schmidhuber, 1997).
//!
//! With gates i, f, g, o from W_ih·x_t + b_ih + W_hh·h_{t-1} + b_hh: c_t = σ(f)·c_{t-1} + σ(i)·tanh(g),
//! h_t = σ(o)·tanh(c_t). Inside, everything is time-major: (T, M, ...), so that one step is one block; a step's input
//! and the hidden state before it lie side by side, so that it is one product.

use super::dropout::{apply, fill_keep, keep_scale, probability};
use super::registry::{Entry, Example, Place, check_size, wrong_input};
use super::stack::disjoint;
use super::{Backward, Forward, Initial, Layer, Mode, Plan};
use crate::arena::Storage;
use crate::config::{Component, Precision};
use crate::error::Result;
use crate::kernel::{LstmGradients, LstmWeights, Real, Recurrence};
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

/// One direction of one level: its parameters and where its things lie.
struct Cell {
    /// Its sizes.
    r: Recurrence,
    weight_ih: Range<usize>,
    weight_hh: Range<usize>,
    bias: Option<(Range<usize>, Range<usize>)>,
    /// In `packed`.
    packed: Range<usize>,
    /// In the cache: rows (h_{t-1}, x_t), and what the kernel keeps.
    z: Range<usize>,
    kept: Range<usize>,
}

/// One layer of the stack: its one or two directions.
struct Level {
    cells: Vec<Cell>,
    /// Dropout of its input, (M, T, inputs); empty where there is none.
    keep: Vec<u8>,
}

struct Lstm {
    plan: Plan,
    steps: usize,
    hidden: usize,
    /// Hidden states side by side: H, or 2H.
    width: usize,
    levels: Vec<Level>,
    p: f64,
    return_sequences: bool,
    /// Backward's parts of the scratch: gradients (T, M, ...) of a level's output and input, and the kernel's.
    dy: Range<usize>,
    dx: Range<usize>,
    kernel: Range<usize>,
}

/// Takes consecutive aligned ranges.
fn take(total: &mut usize, len: usize) -> Range<usize> {
    let start = *total;
    *total = (start + len).next_multiple_of(16);
    start..start + len
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
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
    let bf16 = place.precision == Precision::Bf16;
    let (mut cache, mut packed, mut kernel) = (0, 0, 0);
    let mut levels = Vec::with_capacity(keys.num_layers);
    for level in 0..keys.num_layers {
        let inputs = if level == 0 { features } else { width };
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
            let r = Recurrence { steps, inputs, hidden, reverse: direction == 1, width, bf16 };
            let packed = take(&mut packed, r.packed_len());
            let (z, kept) = (take(&mut cache, r.rows_len(m)), take(&mut cache, r.cache_len(m)));
            kernel = kernel.max(r.scratch_len(m));
            cells.push(Cell { r, weight_ih, weight_hh, bias, packed, z, kept });
        }
        plan.flops += (2 * steps * directions * 4 * hidden * (inputs + hidden)) as u64;
        let keep = vec![0; if p > 0.0 && level > 0 { m * steps * width } else { 0 }];
        if !keep.is_empty() {
            let number = if plan.streams.is_empty() { place.number } else { place.numbers.take() };
            plan.streams.push(number);
        }
        levels.push(Level { cells, keep });
    }
    let (mut scratch, widest) = (0, width.max(features));
    let lstm = Lstm {
        steps,
        hidden,
        width,
        levels,
        p,
        return_sequences: keys.return_sequences,
        dy: take(&mut scratch, steps * m * widest),
        dx: take(&mut scratch, steps * m * widest),
        kernel: take(&mut scratch, kernel),
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
    fn weights<'a, T: Real>(&self, params: &'a [T]) -> LstmWeights<'a, T> {
        LstmWeights {
            ih: &params[self.weight_ih.clone()],
            hh: &params[self.weight_hh.clone()],
            bias: self.bias.clone().map(|(ih, hh)| (&params[ih], &params[hh])),
        }
    }

    fn gradients<'a, T: Real>(&self, dparams: &'a mut [T]) -> LstmGradients<'a, T> {
        let (bias_ih, bias_hh) = self.bias.clone().unwrap_or_default();
        let ranges = [self.weight_ih.clone(), self.weight_hh.clone(), bias_ih, bias_hh];
        let [ih, hh, bias_ih, bias_hh] = disjoint(dparams, ranges);
        LstmGradients { ih, hh, bias: self.bias.is_some().then_some((bias_ih, bias_hh)) }
    }

    /// The input x_t of a sample among the rows.
    fn input<'a, T>(&self, m: usize, time: usize, sample: usize, z: &'a mut [T]) -> &'a mut [T] {
        let row = self.r.time(time) * m + sample;
        &mut z[row * self.r.row_len() + self.r.hidden..][..self.r.inputs]
    }

    /// The hidden state h_t of a sample among the rows.
    fn output<'a, T>(&self, m: usize, time: usize, sample: usize, z: &'a [T]) -> &'a [T] {
        let row = (self.r.time(time) + 1) * m + sample;
        &z[row * self.r.row_len()..][..self.r.hidden]
    }

    /// The time of its last step.
    fn last(&self) -> usize {
        self.r.time(self.r.steps - 1)
    }
}

impl Lstm {
    /// Gives the hidden states of a level to the next one, dropped out where `keep` says so.
    fn hand_up<T: Real>(&self, from: &Level, to: &Level, keep: &[u8], m: usize, cache: &mut [T]) {
        let scale = T::of(keep_scale(self.p));
        for next in &to.cells {
            for cell in &from.cells {
                let [z, next_z] = disjoint(cache, [cell.z.clone(), next.z.clone()]);
                for time in 0..self.steps {
                    for sample in 0..m {
                        let x = &mut next.input(m, time, sample, next_z)[cell.r.column()..][..self.hidden];
                        x.copy_from_slice(cell.output(m, time, sample, z));
                        if !keep.is_empty() {
                            let first = (sample * self.steps + time) * self.width + cell.r.column();
                            apply(&keep[first..][..self.hidden], scale, x);
                        }
                    }
                }
            }
        }
    }

    /// Whether the input of this level is dropped out.
    fn drops(&self, level: usize, mode: Mode) -> bool {
        self.p > 0.0 && level > 0 && mode != Mode::Eval
    }

    fn last_level(&self) -> &Level {
        &self.levels[self.levels.len() - 1]
    }
}

impl<T: Real> Layer<T> for Lstm {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn prepare(&mut self, params: &[T], packed: &mut [T]) {
        for cell in self.levels.iter().flat_map(|level| &level.cells) {
            T::lstm_prepare(&cell.r, &cell.weights(params), &mut packed[cell.packed.clone()]);
        }
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        let (m, steps, hidden, width) = (io.m, self.steps, self.hidden, self.width);
        for cell in &self.levels[0].cells {
            let z = &mut io.cache[cell.z.clone()];
            for (sample, x) in io.x.chunks_exact(steps * cell.r.inputs).enumerate() {
                for (time, x) in x.chunks_exact(cell.r.inputs).enumerate() {
                    cell.input(m, time, sample, z).copy_from_slice(x);
                }
            }
        }
        let scratch = &mut io.scratch[self.kernel.clone()];
        for index in 0..self.levels.len() {
            if index > 0 {
                let drops = self.drops(index, io.mode);
                let mut keep = std::mem::take(&mut self.levels[index].keep);
                for (sample, keep) in keep.chunks_exact_mut(steps * width).take(if drops { m } else { 0 }).enumerate() {
                    if let Some(stream) = io.mode.stream(sample, self.plan.streams[index - 1]) {
                        fill_keep(&stream, self.p, keep);
                    }
                }
                let (from, to) = (&self.levels[index - 1], &self.levels[index]);
                self.hand_up(from, to, if drops { &keep } else { &[] }, m, io.cache);
                self.levels[index].keep = keep;
            }
            for cell in &self.levels[index].cells {
                let [z, kept] = disjoint(io.cache, [cell.z.clone(), cell.kept.clone()]);
                let packed = &io.packed[cell.packed.clone()];
                T::lstm_forward(&cell.r, m, &cell.weights(io.params), packed, z, kept, scratch);
            }
        }
        for cell in &self.last_level().cells {
            let z = &io.cache[cell.z.clone()];
            for (sample, y) in
                io.y.chunks_exact_mut(if self.return_sequences { steps * width } else { width }).enumerate()
            {
                for (time, y) in y.chunks_exact_mut(width).enumerate() {
                    let time = if self.return_sequences { time } else { cell.last() };
                    y[cell.r.column()..][..hidden].copy_from_slice(cell.output(m, time, sample, z));
                }
            }
        }
    }

    fn backward(&mut self, mut io: Backward<'_, T>) {
        let (m, steps, hidden, width) = (io.m, self.steps, self.hidden, self.width);
        let [mut dy, mut dx, scratch] = disjoint(io.scratch, [self.dy.clone(), self.dx.clone(), self.kernel.clone()]);
        if self.return_sequences {
            swap_axes(m, steps, width, io.dy, dy);
        } else {
            dy[..steps * m * width].fill(T::ZERO);
            for cell in &self.last_level().cells {
                for (sample, given) in io.dy.chunks_exact(width).enumerate() {
                    let at = (cell.last() * m + sample) * width + cell.r.column();
                    dy[at..][..hidden].copy_from_slice(&given[cell.r.column()..][..hidden]);
                }
            }
        }
        for (index, level) in self.levels.iter().enumerate().rev() {
            for cell in &level.cells {
                let (z, kept) = (&io.cache[cell.z.clone()], &io.cache[cell.kept.clone()]);
                let (weights, packed) = (cell.weights(io.params), &io.packed[cell.packed.clone()]);
                let gradients = cell.gradients(io.dparams);
                let dx = (index > 0 || io.dx.is_some()).then_some(&mut *dx);
                T::lstm_backward(&cell.r, m, &weights, packed, z, kept, dy, dx, gradients, scratch);
            }
            if self.drops(index, io.mode) {
                let scale = T::of(keep_scale(self.p));
                for (row, dx) in dx.chunks_exact_mut(width).take(steps * m).enumerate() {
                    let (time, sample) = (row / m, row % m);
                    apply(&level.keep[(sample * steps + time) * width..][..width], scale, dx);
                }
            }
            std::mem::swap(&mut dy, &mut dx);
        }
        // After the last swap the gradient of the input is where a level's output would be.
        if let Some(dx) = &mut io.dx {
            swap_axes(steps, m, self.levels[0].cells[0].r.inputs, dy, dx);
        }
    }
}
