//! What the recurrent layers share: levels of cells over a sequence, in one or both directions, as torch.nn.LSTM and
//! torch.nn.GRU with batch_first have them.
//!
//! Inside, everything is time-major: (T, M, ...), so that one step is one block; a step's input and the hidden state before
//! it lie side by side, so that it is one product.

use super::dropout::{apply, fill_keep, keep_scale, probability};
use super::registry::{Build, Entry, Example, Place, check_size, wrong_input};
use super::stack::disjoint;
use super::{Backward, Forward, Initial, Layer, Mode, Op, Plan};
use crate::arena::Storage;
use crate::config::Component;
use crate::error::Result;
use crate::kernel::view::{sequences, sequences_mut};
use crate::kernel::{Cell, CellGradients, CellKind, CellWeights, Kept, Real, Recurrence};
use crate::shape::Shape;
use ndarray::{ArrayView3, ArrayViewMut3, Axis, s};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A recurrent layer's entry: all have the same keys and cases.
pub(super) const fn entry(
    name: &'static str,
    about: &'static str,
    build_f32: Build<f32>,
    build_f64: Build<f64>,
) -> Entry {
    Entry {
        name,
        about,
        keys: "hidden_size, num_layers = 1, bias = true, dropout = 0 (between layers), bidirectional = false, \
               return_sequences = false (true: the hidden state of every step)",
        resolve: |component| Ok(component.resolve::<Keys>()?.1),
        build_f32,
        build_f64,
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
    }
}

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
struct Direction<T> {
    /// Its sizes.
    r: Recurrence,
    cell: Box<dyn Cell<T>>,
    weight_ih: Range<usize>,
    weight_hh: Range<usize>,
    bias: Option<(Range<usize>, Range<usize>)>,
    /// In `packed`.
    packed: Range<usize>,
    /// In the cache: rows (h_{t-1}, x_t), and what the cell keeps.
    rows: Range<usize>,
    kept: Range<usize>,
}

/// One layer of the stack: its one or two directions.
struct Level<T> {
    directions: Vec<Direction<T>>,
    /// In the cache: dropout of its input, a byte for each of (M, T, inputs); empty where there is none.
    keep: Range<usize>,
}

struct Recurrent<T> {
    plan: Plan,
    steps: usize,
    hidden: usize,
    /// Hidden states side by side: H, or 2H.
    width: usize,
    levels: Vec<Level<T>>,
    p: f64,
    return_sequences: bool,
    /// Backward's parts of the scratch: gradients (T, M, ...) of a level's output and input, and the cells'.
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

pub(super) fn build<T: Real>(kind: CellKind, component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    let Shape::Sequence { t: steps, f: features } = place.input else {
        let mend = "use it on series data, or with return_sequences = true in the recurrent layer before it";
        return Err(wrong_input(component, place.input, "a sequence", mend));
    };
    let (hidden, m) = (keys.hidden_size, place.m);
    if hidden == 0 {
        return Err(component.error("hidden_size", "is 0", "give at least 1"));
    }
    if keys.num_layers == 0 {
        return Err(component.error("num_layers", "is 0", "give at least 1"));
    }
    let (gates, directions) = (kind.gates(), if keys.bidirectional { 2 } else { 1 });
    check_size::<T>(component, "hidden_size", &[4, hidden, features.max(hidden).max(3 * m * steps), directions])?;
    check_size::<T>(component, "num_layers", &[keys.num_layers, directions, 4, hidden, hidden.max(2 * m * steps)])?;
    let p = probability(component, "dropout", keys.dropout)?;
    let width = directions * hidden;
    let output =
        if keys.return_sequences { Shape::Sequence { t: steps, f: width } } else { Shape::Vector { n: width } };
    let (levels, bidirectional, return_sequences) = (keys.num_layers, keys.bidirectional, keys.return_sequences);
    let mut plan = Plan::new(Op::Recurrent { kind, hidden, levels, bidirectional, return_sequences }, output);
    let bound = Initial::Uniform(1.0 / (hidden as f64).sqrt());
    let (mut cache, mut packed, mut kernel) = (0, 0, 0);
    let mut levels = Vec::with_capacity(keys.num_layers);
    for level in 0..keys.num_layers {
        let inputs = if level == 0 { features } else { width };
        let mut cells = Vec::with_capacity(directions);
        for direction in 0..directions {
            let suffix = format!("l{level}{}", if direction == 1 { "_reverse" } else { "" });
            let mut weight = |name: &str, columns: usize| {
                plan.parameter(&format!("{name}_{suffix}"), &[gates * hidden, columns], Storage::Panels, bound)
            };
            let (weight_ih, weight_hh) = (weight("weight_ih", inputs), weight("weight_hh", hidden));
            let mut bias =
                |name: &str| plan.parameter(&format!("{name}_{suffix}"), &[gates * hidden], Storage::Plain, bound);
            let bias = keys.bias.then(|| (bias("bias_ih"), bias("bias_hh")));
            let (reverse, precision) = (direction == 1, place.precision);
            let r = Recurrence { kind, steps, inputs, hidden, reverse, width, precision };
            let packed = take(&mut packed, r.packed_len());
            let (rows, kept) = (take(&mut cache, r.rows_len(m)), take(&mut cache, r.cache_len(m)));
            kernel = kernel.max(r.scratch_len(m));
            let cell = T::recurrent(r);
            plan.method = Some(cell.method());
            cells.push(Direction { r, cell, weight_ih, weight_hh, bias, packed, rows, kept });
        }
        plan.flops += (2 * steps * directions * gates * hidden * (inputs + hidden)) as u64;
        let dropped = if p > 0.0 && level > 0 { m * steps * width } else { 0 };
        let keep = take(&mut cache, dropped.div_ceil(size_of::<T>()));
        if !keep.is_empty() {
            let number = if plan.streams.is_empty() { place.number } else { place.numbers.take() };
            plan.streams.push(number);
        }
        levels.push(Level { directions: cells, keep });
    }
    let (mut scratch, widest) = (0, width.max(features));
    let layer = Recurrent {
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
    Ok(Box::new(layer))
}

impl<T: Real> Direction<T> {
    fn weights<'a>(&self, params: &'a [T], packed: &'a [T]) -> CellWeights<'a, T> {
        CellWeights {
            ih: &params[self.weight_ih.clone()],
            hh: &params[self.weight_hh.clone()],
            bias: self.bias.clone().map(|(ih, hh)| (&params[ih], &params[hh])),
            packed,
        }
    }

    fn gradients<'a>(&self, dparams: &'a mut [T]) -> CellGradients<'a, T> {
        let (bias_ih, bias_hh) = self.bias.clone().unwrap_or_default();
        let ranges = [self.weight_ih.clone(), self.weight_hh.clone(), bias_ih, bias_hh];
        let [ih, hh, bias_ih, bias_hh] = disjoint(dparams, ranges);
        CellGradients { ih, hh, bias: self.bias.is_some().then_some((bias_ih, bias_hh)) }
    }

    /// Its rows (h, x) of `m` samples, (T + 1, M, row).
    fn rows<'a>(&self, m: usize, rows: &'a [T]) -> ArrayView3<'a, T> {
        sequences(self.r.steps + 1, m, self.r.row_len(), rows)
    }

    /// As [`Direction::rows`], to be written.
    fn rows_mut<'a>(&self, m: usize, rows: &'a mut [T]) -> ArrayViewMut3<'a, T> {
        sequences_mut(self.r.steps + 1, m, self.r.row_len(), rows)
    }

    /// Where x_t lies in a row.
    fn input(&self) -> Range<usize> {
        self.r.hidden..self.r.hidden + self.r.inputs
    }

    /// Its columns among the hidden states of both directions.
    fn columns(&self) -> Range<usize> {
        self.r.column()..self.r.column() + self.r.hidden
    }

    /// The time of its last step.
    fn last(&self) -> usize {
        self.r.time(self.r.steps - 1)
    }
}

impl<T: Real> Recurrent<T> {
    /// Gives the hidden states of a level to the next one, dropped out where `drops`.
    fn hand_up(&self, from: &Level<T>, to: &Level<T>, drops: bool, m: usize, cache: &mut [T]) {
        let scale = T::of(keep_scale(self.p));
        for next in &to.directions {
            for direction in &from.directions {
                let ranges = [direction.rows.clone(), next.rows.clone(), to.keep.clone()];
                let [rows, next_rows, keep] = disjoint(cache, ranges);
                let (rows, mut next_rows) = (direction.rows(m, rows), next.rows_mut(m, next_rows));
                let keep: &[u8] = bytemuck::cast_slice(keep);
                let columns = direction.columns();
                for time in 0..self.steps {
                    let h = rows.slice(s![direction.r.time(time) + 1, .., ..self.hidden]);
                    let x = next_rows.slice_mut(s![next.r.time(time), .., next.input()]);
                    let mut x = x.slice_move(s![.., columns.clone()]);
                    for (sample, (h, mut x)) in h.rows().into_iter().zip(x.outer_iter_mut()).enumerate() {
                        x.assign(&h);
                        if drops {
                            let first = (sample * self.steps + time) * self.width + columns.start;
                            apply(&keep[first..][..self.hidden], scale, x.as_slice_mut().expect("a row lies dense"));
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

    fn last_level(&self) -> &Level<T> {
        &self.levels[self.levels.len() - 1]
    }

    /// Times and features of the output.
    fn given(&self) -> (usize, usize) {
        (if self.return_sequences { self.steps } else { 1 }, self.width)
    }
}

impl<T: Real> Layer<T> for Recurrent<T> {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn prepare(&mut self, params: &[T], packed: &mut [T]) {
        for direction in self.levels.iter().flat_map(|level| &level.directions) {
            direction.cell.prepare(direction.weights(params, &[]), &mut packed[direction.packed.clone()]);
        }
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        let (m, steps, (times, width)) = (io.m, self.steps, self.given());
        for direction in &self.levels[0].directions {
            let mut rows = direction.rows_mut(m, &mut io.cache[direction.rows.clone()]);
            let x = sequences(m, steps, direction.r.inputs, io.x);
            for (time, x) in x.axis_iter(Axis(1)).enumerate() {
                rows.slice_mut(s![direction.r.time(time), .., direction.input()]).assign(&x);
            }
        }
        let scratch = &mut io.scratch[self.kernel.clone()];
        for (index, level) in self.levels.iter().enumerate() {
            if index > 0 {
                let drops = self.drops(index, io.mode);
                let keep: &mut [u8] = bytemuck::cast_slice_mut(&mut io.cache[level.keep.clone()]);
                for sample in 0..if drops { m } else { 0 } {
                    if let Some(stream) = io.mode.stream(sample, self.plan.streams[index - 1]) {
                        fill_keep(&stream, self.p, &mut keep[sample * steps * width..][..steps * width]);
                    }
                }
                self.hand_up(&self.levels[index - 1], level, drops, m, io.cache);
            }
            for direction in &level.directions {
                let [rows, kept] = disjoint(io.cache, [direction.rows.clone(), direction.kept.clone()]);
                let weights = direction.weights(io.params, &io.packed[direction.packed.clone()]);
                direction.cell.forward(weights, direction.rows_mut(m, rows), kept, scratch);
            }
        }
        let mut y = sequences_mut(m, times, width, io.y);
        for direction in &self.last_level().directions {
            let rows = direction.rows(m, &io.cache[direction.rows.clone()]);
            for (time, mut y) in y.axis_iter_mut(Axis(1)).enumerate() {
                let time = if self.return_sequences { time } else { direction.last() };
                let h = rows.slice(s![direction.r.time(time) + 1, .., ..self.hidden]);
                y.slice_mut(s![.., direction.columns()]).assign(&h);
            }
        }
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        let (m, steps, (times, width)) = (io.m, self.steps, self.given());
        let [mut dy, mut dx, scratch] = disjoint(io.scratch, [self.dy.clone(), self.dx.clone(), self.kernel.clone()]);
        let given = sequences(m, times, width, io.dy);
        let mut of_last = sequences_mut(steps, m, width, dy);
        if self.return_sequences {
            of_last.assign(&given.permuted_axes((1, 0, 2)));
        } else {
            of_last.fill(T::ZERO);
            for direction in &self.last_level().directions {
                let h = given.slice(s![.., 0, direction.columns()]);
                of_last.slice_mut(s![direction.last(), .., direction.columns()]).assign(&h);
            }
        }
        for (index, level) in self.levels.iter().enumerate().rev() {
            let inputs = level.directions[0].r.inputs;
            for direction in &level.directions {
                let rows = direction.rows(m, &io.cache[direction.rows.clone()]);
                let kept = Kept { rows, cache: &io.cache[direction.kept.clone()] };
                let weights = direction.weights(io.params, &io.packed[direction.packed.clone()]);
                let wanted = (index > 0 || io.dx.is_some()).then(|| sequences_mut(steps, m, inputs, dx));
                let gradients = direction.gradients(io.dparams);
                direction.cell.backward(weights, kept, sequences(steps, m, width, dy), wanted, gradients, scratch);
            }
            if self.drops(index, io.mode) {
                let scale = T::of(keep_scale(self.p));
                let keep: &[u8] = bytemuck::cast_slice(&io.cache[level.keep.clone()]);
                for (row, dx) in dx.chunks_exact_mut(width).take(steps * m).enumerate() {
                    let (time, sample) = (row / m, row % m);
                    apply(&keep[(sample * steps + time) * width..][..width], scale, dx);
                }
            }
            std::mem::swap(&mut dy, &mut dx);
        }
        // After the last swap the gradient of the input is where a level's output would be.
        if let Some(dx) = io.dx {
            let inputs = self.levels[0].directions[0].r.inputs;
            let from = sequences(steps, m, inputs, dy);
            sequences_mut(m, steps, inputs, dx).assign(&from.permuted_axes((1, 0, 2)));
        }
    }
}
