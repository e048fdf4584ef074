//! Six steps of every optimizer against PyTorch (LARS and LAMB: against their papers), in f32.
//!
//! `golden/make_optimizers.py` tells how the cases were made.

mod support;

use ddl::arena::{Buffer, Layout, Storage};
use ddl::config::Component;
use ddl::optimizer::{self, Optimizer, Update};
use serde::Deserialize;
use support::value;
use toml::Table;

/// Of the largest element of a tensor.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Case {
    name: String,
    optimizer: Table,
    zero_weight: bool,
    steps: Vec<Step>,
}

/// The parameters after a step.
#[derive(Deserialize)]
struct Step {
    weight: Vec<f64>,
    bias: Vec<f64>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("golden/optimizers.json")).unwrap()
}

impl Case {
    fn kind(&self) -> &str {
        self.optimizer["type"].as_str().unwrap()
    }

    fn build(&self) -> Box<dyn Optimizer> {
        let mut keys = self.optimizer.clone();
        keys.remove("type");
        optimizer::build(&Component::new(self.kind(), &toml::to_string(&keys).unwrap()).unwrap()).unwrap()
    }

    /// The steps, with gradients times `1 / grad_scale` that the update has to scale back.
    fn run(&self, storage: Storage, grad_scale: f32) {
        let mut layout = Layout::default();
        layout.push("0", "weight", &[4, 3], storage);
        layout.push("0", "bias", &[3], Storage::Plain);
        let [weight, bias] = layout.slots() else { panic!("two slots") };
        let numbers = |tag: u32, first: u32, count: usize| -> Vec<f32> {
            (first..first + count as u32).map(|i| value(tag, i)).collect()
        };
        let (mut params, mut grads) = (vec![0.0; layout.len()], vec![0.0; layout.len()]);
        if !self.zero_weight {
            weight.write(&numbers(10, 0, 12), &mut params);
        }
        bias.write(&numbers(11, 0, 3), &mut params);
        let optimizer = self.build();
        let mut moments: Vec<Buffer<f32>> = optimizer.slots().iter().map(|_| Buffer::zeros(layout.len())).collect();
        for (t, expected) in self.steps.iter().enumerate() {
            weight.write(&numbers(100 + t as u32, 0, 12), &mut grads);
            bias.write(&numbers(100 + t as u32, 12, 3), &mut grads);
            grads.iter_mut().for_each(|g| *g /= grad_scale);
            let mut of_slots = moments.iter_mut();
            optimizer.update(Update {
                layout: &layout,
                params: &mut params,
                grads: &mut grads,
                first: 0,
                moments: std::array::from_fn(|_| of_slots.next().map_or(&mut [][..], |moment| &mut moment[..])),
                lr: optimizer.lr() as f32,
                momentum: None,
                step: t as u64 + 1,
                grad_scale,
            });
            let name = format!("{} ({storage:?}, gradients times {grad_scale}), step {t}", self.name);
            compare(&format!("{name}: weight"), &weight.read(&params), &expected.weight);
            compare(&format!("{name}: bias"), &bias.read(&params), &expected.bias);
            let mut inside = vec![0.0; layout.len()];
            weight.write(&[1.0; 12], &mut inside);
            bias.write(&[1.0; 3], &mut inside);
            let padding = (0..layout.len()).filter(|&i| inside[i] == 0.0);
            assert!(padding.clone().all(|i| params[i] == 0.0), "{name}: padding of parameters");
            assert!(moments.iter().all(|m| padding.clone().all(|i| m[i] == 0.0)), "{name}: padding of moments");
        }
    }
}

fn compare(what: &str, found: &[f32], expected: &[f64]) {
    let largest = expected.iter().fold(0.0, |high: f64, v| high.max(v.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= TOLERANCE * largest, "{what}[{i}]: {found}, PyTorch's {expected}");
    }
}

#[test]
fn every_optimizer_agrees() {
    for case in cases() {
        case.run(Storage::Plain, 1.0);
        case.run(Storage::Panels, 1.0);
    }
}

/// A clipped gradient is the gradient times a factor, in every formula.
#[test]
fn clipping_scales_the_gradient() {
    for case in cases() {
        case.run(Storage::Plain, 0.25);
        case.run(Storage::Panels, 0.3);
    }
}

#[test]
fn every_optimizer_of_the_registry_has_a_case() {
    let cases = cases();
    for entry in optimizer::REGISTRY {
        let has = cases.iter().any(|case| case.kind() == entry.name);
        assert!(has, "{}: add a case to tests/golden/make_optimizers.py and run it", entry.name);
    }
}

#[test]
fn the_norm_is_that_of_f64() {
    let values: Vec<f32> = (0..10_007).map(|i| value(5, i)).collect();
    let exact = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    assert!((optimizer::norm(&values) - exact).abs() < 1e-6 * exact);
    assert_eq!(optimizer::norm(&[3.0, 4.0]), 5.0);
    assert!(optimizer::norm(&[1.0, f32::NAN]).is_nan());
}

/// Moments that only decay end at 0 and are never subnormal, by each optimizer; a NaN stays one.
#[test]
fn moments_are_never_subnormal() {
    let mut layout = Layout::default();
    layout.push("0", "weight", &[3, 11], Storage::Plain);
    for (kind, keys) in [
        ("sgd", "lr = 0.1\nmomentum = 0.9"),
        ("sgd", "lr = 0.1\nmomentum = 0.9\nnesterov = true"),
        ("lars", "lr = 0.1"),
        ("adam", "betas = [0.9, 0.95]"),
        ("adamw", "betas = [0.9, 0.95]"),
        ("lamb", "betas = [0.9, 0.95]"),
    ] {
        let optimizer = optimizer::build(&Component::new(kind, keys).unwrap()).unwrap();
        let mut params = vec![0.5; layout.len()];
        let mut moments = [vec![1e-30; layout.len()], vec![1e-30; layout.len()]];
        moments[0][3] = f32::NAN;
        for step in 1..600 {
            let [first, second] = &mut moments;
            optimizer.update(Update {
                layout: &layout,
                first: 0,
                params: &mut params,
                grads: &mut vec![0.0; layout.len()],
                moments: if optimizer.slots().len() == 2 { [first, second] } else { [first, &mut []] },
                lr: optimizer.lr() as f32,
                momentum: None,
                step,
                grad_scale: 1.0,
            });
            assert!(
                !moments.iter().any(|m| m[..33].iter().any(|m| m.is_subnormal())),
                "{kind} {keys}: step {step}: {moments:?}"
            );
        }
        for moment in &moments[..optimizer.slots().len()] {
            assert!(moment[..33].iter().all(|m| *m == 0.0 || m.is_nan()), "{kind} {keys}: {moment:?}");
        }
        assert!(moments[0][3].is_nan(), "{kind} {keys}");
    }
}

/// A schedule's momentum takes the place of the job's: sgd's, lars's, and beta1 of the others.
#[test]
fn a_given_momentum_is_the_jobs() {
    let mut layout = Layout::default();
    layout.push("0", "weight", &[3, 11], Storage::Plain);
    let run = |kind: &str, keys: &str, momentum: Option<f64>| {
        let optimizer = optimizer::build(&Component::new(kind, keys).unwrap()).unwrap();
        let numbers = |tag: u32| (0..layout.len() as u32).map(|i| value(tag, i)).collect::<Vec<f32>>();
        let (mut params, mut moments) = (numbers(10), [vec![0.0; layout.len()], vec![0.0; layout.len()]]);
        for step in 1..4 {
            let [first, second] = &mut moments;
            let (layout, grads) = (&layout, &mut numbers(100 + step as u32));
            let moments: [&mut [f32]; 2] = [first, if optimizer.slots().len() == 2 { second } else { &mut [] }];
            let lr = 0.1;
            optimizer.update(Update {
                layout,
                first: 0,
                params: &mut params,
                grads,
                moments,
                lr,
                momentum,
                step,
                grad_scale: 1.0,
            });
        }
        params
    };
    for (kind, keys, same) in [
        ("sgd", "lr = 0.1\nmomentum = 0.9", "lr = 0.1\nmomentum = 0.8"),
        ("sgd", "lr = 0.1\nmomentum = 0.9\nnesterov = true", "lr = 0.1\nmomentum = 0.8\nnesterov = true"),
        ("lars", "lr = 0.1", "lr = 0.1\nmomentum = 0.8"),
        ("adam", "", "betas = [0.8, 0.999]"),
        ("adamw", "", "betas = [0.8, 0.999]"),
        ("lamb", "", "betas = [0.8, 0.999]"),
    ] {
        let (given, expected) = (run(kind, keys, Some(0.8)), run(kind, same, None));
        assert_eq!(given, expected, "{kind}");
        assert_ne!(given, run(kind, keys, None), "{kind}");
    }
}
