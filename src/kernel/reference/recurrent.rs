//! Recurrent cells, step by step.

use super::{matrix, put};
use crate::kernel::recurrent::{Cell, CellGradients, CellKind, CellWeights, Kept, Recurrence};
use crate::kernel::view::{sequences, sequences_mut};
use crate::kernel::{Real, Scalar};
use ndarray::{Array1, Array2, ArrayView2, ArrayView3, ArrayViewMut3, Axis, aview1, concatenate, s};

struct Plain(Recurrence);

/// A direction, step by step. Its cache holds the states (T + 1, M, H): c of an LSTM, h of a GRU.
pub fn plan<T: Real>(recurrence: Recurrence) -> Box<dyn Cell<T>> {
    Box::new(Plain(recurrence))
}

/// The weights as matrices (inputs, G·H) and (H, G·H), and the biases (G·H).
struct Weights<T> {
    ih: Array2<T>,
    hh: Array2<T>,
    bias_ih: Array1<T>,
    bias_hh: Array1<T>,
}

impl<T: Scalar> Weights<T> {
    fn of(r: &Recurrence, weights: &CellWeights<'_, T>) -> Self {
        let n = r.kind.gates() * r.hidden;
        let bias = |given: Option<&[T]>| given.map_or(Array1::zeros(n), |bias| aview1(&bias[..n]).to_owned());
        Self {
            ih: matrix(r.inputs, n, weights.ih),
            hh: matrix(r.hidden, n, weights.hh),
            bias_ih: bias(weights.bias.map(|both| both.0)),
            bias_hh: bias(weights.bias.map(|both| both.1)),
        }
    }

    /// W_ih·x + b_ih and W_hh·h + b_hh of a step's rows (h, x), gate by gate: (M, H) each.
    fn gates(&self, r: &Recurrence, rows: ArrayView2<'_, T>) -> (Vec<Array2<T>>, Vec<Array2<T>>) {
        let (h, x) = halves(r, rows);
        let (input, hidden) = (x.dot(&self.ih) + &self.bias_ih, h.dot(&self.hh) + &self.bias_hh);
        let gates = |all: Array2<T>| {
            let gate = |gate: usize| all.slice(s![.., gate * r.hidden..(gate + 1) * r.hidden]).to_owned();
            (0..r.kind.gates()).map(gate).collect()
        };
        (gates(input), gates(hidden))
    }
}

/// h and x of a step's rows.
fn halves<'a, T>(r: &Recurrence, rows: ArrayView2<'a, T>) -> (ArrayView2<'a, T>, ArrayView2<'a, T>) {
    let (h, rest) = rows.split_at(Axis(1), r.hidden);
    (h, rest.slice_move(s![.., ..r.inputs]))
}

fn sigmoid<T: Scalar>(x: &Array2<T>) -> Array2<T> {
    x.mapv(T::sigmoid)
}

fn tanh<T: Scalar>(x: &Array2<T>) -> Array2<T> {
    x.mapv(T::tanh)
}

/// 1 - x.
fn rest<T: Scalar>(x: &Array2<T>) -> Array2<T> {
    x.mapv(|x| T::ONE - x)
}

/// The state and the hidden state after a step.
fn step<T: Scalar>(
    kind: CellKind,
    (input, hidden): (Vec<Array2<T>>, Vec<Array2<T>>),
    before: ArrayView2<'_, T>,
) -> (Array2<T>, Array2<T>) {
    let sum = |gate: usize| &input[gate] + &hidden[gate];
    match kind {
        CellKind::Lstm => {
            let (i, f, g, o) = (sigmoid(&sum(0)), sigmoid(&sum(1)), tanh(&sum(2)), sigmoid(&sum(3)));
            let c = f * before + i * g;
            let h = o * tanh(&c);
            (c, h)
        }
        CellKind::Gru => {
            let (r, z) = (sigmoid(&sum(0)), sigmoid(&sum(1)));
            let n = tanh(&(&input[2] + r * &hidden[2]));
            let h = rest(&z) * n + z * before;
            (h.clone(), h)
        }
    }
}

/// Gradients of a step: of the pre-activations of the input and of the hidden state, gate by gate, and of the state
/// before it past the gates.
struct Back<T> {
    input: Vec<Array2<T>>,
    hidden: Vec<Array2<T>>,
    carried: Array2<T>,
}

/// From the gradients of h and of the state after a step.
fn step_back<T: Scalar>(
    kind: CellKind,
    (input, hidden): (Vec<Array2<T>>, Vec<Array2<T>>),
    (before, after): (ArrayView2<'_, T>, ArrayView2<'_, T>),
    dh: Array2<T>,
    carried: Array2<T>,
) -> Back<T> {
    let sum = |gate: usize| &input[gate] + &hidden[gate];
    match kind {
        CellKind::Lstm => {
            let (i, f, g, o) = (sigmoid(&sum(0)), sigmoid(&sum(1)), tanh(&sum(2)), sigmoid(&sum(3)));
            let t = after.mapv(T::tanh);
            let dc = carried + &dh * &o * rest(&(&t * &t));
            let di = &dc * &g * &i * rest(&i);
            let df = &dc * &before * &f * rest(&f);
            let dg = &dc * &i * rest(&(&g * &g));
            let d_o = dh * &t * &o * rest(&o);
            let gates = vec![di, df, dg, d_o];
            Back { input: gates.clone(), hidden: gates, carried: dc * f }
        }
        CellKind::Gru => {
            let (r, z) = (sigmoid(&sum(0)), sigmoid(&sum(1)));
            let n = tanh(&(&input[2] + &r * &hidden[2]));
            let dh = dh + carried;
            let dn = &dh * &rest(&z) * rest(&(&n * &n));
            let dr = &dn * &hidden[2] * &r * rest(&r);
            let dz = &dh * &(&before - &n) * &z * rest(&z);
            let dhidden = &dn * &r;
            Back { input: vec![dr.clone(), dz.clone(), dn], hidden: vec![dr, dz, dhidden], carried: dh * z }
        }
    }
}

impl<T: Real> Cell<T> for Plain {
    fn method(&self) -> &'static str {
        "reference"
    }

    fn forward(
        &self,
        weights: CellWeights<'_, T>,
        mut rows: ArrayViewMut3<'_, T>,
        cache: &mut [T],
        _scratch: &mut [T],
    ) {
        let (r, m) = (&self.0, rows.dim().1);
        let weights = Weights::of(r, &weights);
        let mut states = sequences_mut(r.steps + 1, m, r.hidden, cache);
        states.index_axis_mut(Axis(0), 0).fill(T::ZERO);
        rows.slice_mut(s![0, .., ..r.hidden]).fill(T::ZERO);
        for at in 0..r.steps {
            let gates = weights.gates(r, rows.index_axis(Axis(0), at));
            let (state, h) = step(r.kind, gates, states.index_axis(Axis(0), at));
            states.index_axis_mut(Axis(0), at + 1).assign(&state);
            rows.slice_mut(s![at + 1, .., ..r.hidden]).assign(&h);
        }
    }

    fn backward(
        &self,
        weights: CellWeights<'_, T>,
        kept: Kept<'_, T>,
        dy: ArrayView3<'_, T>,
        mut dx: Option<ArrayViewMut3<'_, T>>,
        gradients: CellGradients<'_, T>,
        _scratch: &mut [T],
    ) {
        let (r, m) = (&self.0, dy.dim().1);
        let weights = Weights::of(r, &weights);
        let states = sequences(r.steps + 1, m, r.hidden, kept.cache);
        let CellGradients { ih, hh, mut bias } = gradients;
        let (mut dh, mut carried) = (Array2::zeros((m, r.hidden)), Array2::zeros((m, r.hidden)));
        for at in (0..r.steps).rev() {
            let (rows, time) = (kept.rows.index_axis(Axis(0), at), r.time(at));
            let dh_now = dh + dy.slice(s![time, .., r.column()..r.column() + r.hidden]);
            let around = (states.index_axis(Axis(0), at), states.index_axis(Axis(0), at + 1));
            let back = step_back(r.kind, weights.gates(r, rows), around, dh_now, carried);
            let [dinput, dhidden]: [Array2<T>; 2] = [&back.input, &back.hidden].map(|gates| {
                let gates: Vec<_> = gates.iter().map(|gate| gate.view()).collect();
                concatenate(Axis(1), &gates).expect("gates have one height")
            });
            let (h, x) = halves(r, rows);
            put(&x.t().dot(&dinput), true, ih);
            put(&h.t().dot(&dhidden), true, hh);
            if let Some((bias_ih, bias_hh)) = &mut bias {
                for (bias, sums) in [(bias_ih, dinput.sum_axis(Axis(0))), (bias_hh, dhidden.sum_axis(Axis(0)))] {
                    bias.iter_mut().zip(&sums).for_each(|(bias, sum)| *bias += *sum);
                }
            }
            if let Some(dx) = &mut dx {
                let (mut dx, share) = (dx.index_axis_mut(Axis(0), time), dinput.dot(&weights.ih.t()));
                if r.reverse {
                    dx += &share;
                } else {
                    dx.assign(&share);
                }
            }
            (dh, carried) = (dhidden.dot(&weights.hh.t()), back.carried);
        }
    }
}
