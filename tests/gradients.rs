//! Every layer and loss of the registries against central differences, in f64.

use ddl::config::{Component, Precision};
use ddl::data::Targets;
use ddl::layer::{self, Mode, Onto, Pass, Place, Stack};
use ddl::loss;
use ddl::rng::{Numbers, Purpose, Stream};

const TOLERANCE: f64 = 1e-6;
const STEP: f64 = 1e-5;

/// Numbers in ±1, away from 0 so that no kink lies within a difference step.
fn numbers(index: u64, n: usize) -> Vec<f64> {
    let mut stream = Stream::new(99, Purpose::Synthetic, 0, index);
    let mut next = || {
        let v = f64::from(stream.uniform()) * 2.0 - 1.0;
        if v.abs() < 1e-3 { v + 0.01 } else { v }
    };
    (0..n).map(|_| next()).collect()
}

/// A layer in a stack of its own, with its parameters, input and the output weights r of the scalar Σ r·y.
struct Case {
    stack: Stack<f64>,
    m: usize,
    params: Vec<f64>,
    x: Vec<f64>,
    r: Vec<f64>,
}

impl Case {
    fn scalar(&mut self, params: &[f64], x: &[f64]) -> f64 {
        let state = vec![0.5; self.stack.state_layout().len()];
        let mut statistics = vec![0.0; state.len()];
        self.stack.prepare(params);
        self.stack.x(self.m).copy_from_slice(x);
        self.stack.forward(Pass { m: self.m, mode: MODE, params }, &state, &mut statistics);
        self.stack.y(self.m).iter().zip(&self.r).map(|(y, r)| y * r).sum()
    }

    fn gradients(&mut self) -> (Vec<f64>, Vec<f64>) {
        let (params, x) = (self.params.clone(), self.x.clone());
        self.scalar(&params, &x);
        let mut dparams = vec![0.0; params.len()];
        self.stack.y_and_dy(self.m).1.copy_from_slice(&self.r);
        let micro = Pass { m: self.m, mode: MODE, params: &params };
        self.stack.backward(micro, &mut dparams, Onto::Add, true, usize::MAX, &mut |_| {});
        (dparams, self.stack.dx(self.m).to_vec())
    }
}

/// Changes one parameter or input by so much.
type Change<'c> = &'c dyn Fn(&mut Vec<f64>, &mut Vec<f64>, f64);

const MODE: Mode = Mode::Train { seed: 5, step: 3, first: 8, share: 1.0 };

fn check(name: &str, analytic: &[f64], numeric: impl Fn(usize) -> f64, which: impl Iterator<Item = usize>) {
    let scale = analytic.iter().fold(1e-3, |high: f64, g| high.max(g.abs()));
    for i in which {
        let expected = numeric(i);
        let error = (analytic[i] - expected).abs() / scale;
        assert!(error < TOLERANCE, "{name}[{i}]: backward {}, differences {expected}, off by {error:e}", analytic[i]);
    }
}

#[test]
fn every_layer_passes() {
    for entry in layer::REGISTRY {
        assert!(!entry.examples.is_empty(), "{} has no example", entry.name);
        for example in entry.examples {
            let name = format!("{} {{ {} }} on {}", entry.name, example.keys, example.input);
            let component = Component::new(entry.name, example.keys).unwrap();
            let m = 3;
            let place =
                Place { input: example.input, m, number: 1, numbers: &Numbers::default(), precision: Precision::F32 };
            let stack = Stack::<f64>::build(&[component], place, "").unwrap();
            let params = {
                let mut params = vec![0.0; stack.layout().len()];
                for (index, slot) in stack.layout().slots().iter().enumerate() {
                    slot.write(&numbers(index as u64, slot.len()), &mut params);
                }
                params
            };
            let (x, r) = (numbers(100, m * example.input.len()), numbers(101, m * stack.output().len()));
            let slots = stack.layout().slots().to_vec();
            let mut case = Case { stack, m, params, x, r };
            let (dparams, dx) = case.gradients();
            let case = std::cell::RefCell::new(case);
            let difference = |which: Change| {
                let mut case = case.borrow_mut();
                let mut at = |by: f64| {
                    let (mut params, mut x) = (case.params.clone(), case.x.clone());
                    which(&mut params, &mut x, by);
                    case.scalar(&params, &x)
                };
                (at(STEP) - at(-STEP)) / (2.0 * STEP)
            };
            check(&format!("{name} dx"), &dx, |i| difference(&|_, x, by| x[i] += by), 0..dx.len());
            for slot in &slots {
                // The padding of panels is no parameter.
                let mut inside = vec![0.0; dparams.len()];
                slot.write(&vec![1.0; slot.len()], &mut inside);
                let which = slot.range.clone().filter(|&i| inside[i] == 1.0);
                check(&format!("{name} d{}", slot.name), &dparams, |i| difference(&|p, _, by| p[i] += by), which);
                assert!(
                    slot.range.clone().all(|i| inside[i] == 1.0 || dparams[i] == 0.0),
                    "{name}: gradient in padding"
                );
            }
        }
    }
}

#[test]
fn a_stack_in_sequence_passes() {
    let layers = [
        ("conv2d", "out_channels = 3\nkernel_size = 3\npadding = 1"),
        ("batch_norm2d", ""),
        ("relu", ""),
        ("dropout", "p = 0.3"),
        ("max_pool2d", "kernel_size = 2"),
        ("flatten", ""),
        ("tanh", ""),
        ("dropout", "p = 0.2"),
        ("linear", "out_features = 4"),
        ("sigmoid", ""),
        ("linear", "out_features = 2"),
    ];
    let components: Vec<_> = layers.iter().map(|(kind, keys)| Component::new(kind, keys).unwrap()).collect();
    let input = ddl::shape::Shape::Image { c: 2, h: 4, w: 6 };
    let place = Place { input, m: 4, number: 0, numbers: &Numbers::default(), precision: Precision::F32 };
    let stack = Stack::<f64>::build(&components, place, "").unwrap();
    let mut params = vec![0.0; stack.layout().len()];
    for (index, slot) in stack.layout().slots().iter().enumerate() {
        slot.write(&numbers(index as u64, slot.len()), &mut params);
    }
    // Fewer samples than planned, as in a ragged last batch.
    let m = 3;
    let mut case = Case { m, x: numbers(100, m * 48), r: numbers(101, m * 2), params, stack };
    let (dparams, dx) = case.gradients();
    let (params, x) = (case.params.clone(), case.x.clone());
    for i in 0..dx.len() {
        let mut at = |by: f64| {
            let mut x = x.clone();
            x[i] += by;
            case.scalar(&params, &x)
        };
        let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        assert!((dx[i] - expected).abs() < TOLERANCE, "dx[{i}]: {} {expected}", dx[i]);
    }
    for slot in case.stack.layout().slots().to_vec() {
        let i = slot.range.start;
        let mut at = |by: f64| {
            let mut params = params.clone();
            params[i] += by;
            case.scalar(&params, &x)
        };
        let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        assert!((dparams[i] - expected).abs() < TOLERANCE, "{}: {} {expected}", slot.key(), dparams[i]);
    }
}

#[test]
fn every_loss_passes() {
    let (m, n) = (4, 5);
    let targets = Targets {
        classes: vec![3, 0, 4, 1],
        values: numbers(7, m * n).iter().map(|v| *v as f32).collect(),
        ..Targets::default()
    };
    for entry in loss::REGISTRY {
        for keys in entry.examples {
            let loss = (entry.build)(&Component::new(entry.name, keys).unwrap()).unwrap();
            let y = numbers(8, m * n);
            let mut dy = vec![0.0; m * n];
            let share = 1.0 / 16.0;
            loss.evaluate_f64(m, n, &y, &targets, share, Some(&mut dy));
            let numeric = |i: usize| {
                let at = |by: f64| {
                    let mut y = y.clone();
                    y[i] += by;
                    loss.evaluate_f64(m, n, &y, &targets, share, None)
                };
                (at(STEP) - at(-STEP)) / (2.0 * STEP)
            };
            check(&format!("{} {{ {keys} }}", entry.name), &dy, numeric, 0..m * n);
        }
    }
}
