//! Every layer against PyTorch: outputs, gradients and running statistics, in f64 and with the fast kernels of f32.
//!
//! `golden/make_layers.py` tells how the cases were made. ddl keeps images as (H, W, C), the file as torch's (C, H, W).

mod support;

use ddl::arena::{Layout, Slot};
use ddl::config::{Component, Job};
use ddl::layer::{Element, Mode, Onto, Pass, REGISTRY};
use ddl::model::Model;
use ddl::shape::Shape;
use serde::Deserialize;
use std::collections::BTreeMap;
use support::value;
use toml::Table;

#[derive(Deserialize)]
struct Case {
    name: String,
    layer: Table,
    input: Vec<usize>,
    m: usize,
    output: Vec<usize>,
    y: Vec<f64>,
    dx: Vec<f64>,
    dparams: BTreeMap<String, Vec<f64>>,
    state: BTreeMap<String, Vec<f64>>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("golden/layers.json")).unwrap()
}

fn shape(dimensions: &[usize]) -> Shape {
    match *dimensions {
        [c, h, w] => Shape::Image { c, h, w },
        [t, f] => Shape::Sequence { t, f },
        [n] => Shape::Vector { n },
        _ => panic!("{dimensions:?} is no sample's shape"),
    }
}

/// For each element of (m, ...) in memory its place in torch's order.
fn torch_order(shape: Shape, m: usize) -> Vec<usize> {
    match shape {
        Shape::Image { c, h, w } => {
            let places = |sample: usize| {
                (0..h * w).flat_map(move |pixel| (0..c).map(move |channel| (sample * c + channel) * h * w + pixel))
            };
            (0..m).flat_map(places).collect()
        }
        _ => (0..m * shape.len()).collect(),
    }
}

/// value(tag, ·) for `m` samples, in memory order.
fn filled<T: Element>(tag: u32, shape: Shape, m: usize) -> Vec<T> {
    torch_order(shape, m).into_iter().map(|i| T::of(f64::from(value(tag, i as u32)))).collect()
}

/// Whether a parameter is the weight of a norm, which starts about 1: (N) or, of an image, (C, H, W).
fn is_norm_weight(slot: &Slot) -> bool {
    slot.key().ends_with(".weight") && matches!(slot.shape.len(), 1 | 3)
}

/// The name in a module of the layer alone: without the layer's number.
fn name(slot: &Slot) -> String {
    let key = slot.key();
    key.split_once('.').map_or(key.clone(), |(_, name)| name.into())
}

/// What one pass of ddl gave, in torch's order.
struct Found {
    y: Vec<f64>,
    dx: Vec<f64>,
    dparams: BTreeMap<String, Vec<f64>>,
    state: BTreeMap<String, Vec<f64>>,
}

fn to_f64<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

fn by_name<T: Element>(layout: &Layout, arena: &[T]) -> BTreeMap<String, Vec<f64>> {
    layout.slots().iter().map(|slot| (name(slot), to_f64(&slot.read(arena)))).collect()
}

fn in_torch_order<T: Element>(values: &[T], shape: Shape, m: usize) -> Vec<f64> {
    let mut ordered = vec![0.0; values.len()];
    for (v, place) in values.iter().zip(torch_order(shape, m)) {
        ordered[place] = v.to_f64();
    }
    ordered
}

impl Case {
    /// The layer's table through the job file's parser, as a user's would go.
    fn layers(&self) -> Vec<Component> {
        let layers = Table::from_iter([("layers".to_owned(), vec![self.layer.clone()].into())]);
        let model = Table::from_iter([("model".to_owned(), layers.into())]);
        let rest = "data.source = \"synthetic\"\nloss.type = \"mse\"\noptimizer.type = \"adam\"\n\
                    train = { epochs = 1, batch_size = 1 }\n";
        let text = format!("{rest}{}", toml::to_string(&model).unwrap());
        Job::parse(&text, "job.toml", &[]).unwrap_or_else(|e| panic!("{}: {e}", self.name)).layers
    }

    /// One training pass of `m` samples by a model planned for `planned`.
    fn run<T: Element>(&self, planned: usize) -> Found {
        let (m, input) = (self.m, shape(&self.input));
        let mut model =
            Model::<T>::build(&self.layers(), input, planned).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let output = model.stack.output();
        assert_eq!(output, shape(&self.output), "{}: output shape", self.name);
        let mut params = vec![T::ZERO; model.layout().len()];
        let mut state = vec![T::ZERO; model.state_layout().len()];
        let mut statistics = state.clone();
        model.initialise(1, &mut params, &mut state);
        for (k, slot) in model.layout().slots().iter().enumerate() {
            let offset = if is_norm_weight(slot) { 1.0 } else { 0.0 };
            let values = (0..slot.len()).map(|i| T::of(offset + 0.5 * f64::from(value(10 + k as u32, i as u32))));
            slot.write(&values.collect::<Vec<T>>(), &mut params);
        }
        let mode = Mode::Train { seed: 1, step: 0, first: 0, share: 1.0 };
        let stack = &mut model.stack;
        stack.prepare(&params);
        stack.x(m).copy_from_slice(&filled(1, input, m));
        let micro = Pass { m, mode, params: &params };
        stack.forward(micro, &state, &mut statistics);
        let y = in_torch_order(stack.y(m), output, m);
        let mut dparams = vec![T::ZERO; params.len()];
        stack.y_and_dy(m).1.copy_from_slice(&filled(2, output, m));
        stack.backward(micro, &mut dparams, Onto::Add, true, usize::MAX, &mut |_| {});
        let dx = in_torch_order(stack.dx(m), input, m);
        model.update_state(&mut state, &statistics);
        Found { y, dx, dparams: by_name(model.layout(), &dparams), state: by_name(model.state_layout(), &state) }
    }

    fn check<T: Element>(&self, planned: usize, tolerance: f64) {
        let found = self.run::<T>(planned);
        let compare = |what: &str, found: &[f64], expected: &[f64]| {
            let what = format!("{} ({}, planned for {planned}) {what}", self.name, std::any::type_name::<T>());
            assert_eq!(found.len(), expected.len(), "{what}: elements");
            let largest = expected.iter().fold(0.0, |high: f64, v| high.max(v.abs()));
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                let allowed = tolerance * largest;
                let error = (found - expected).abs();
                // Not `error > allowed`: what is not a number must fail too.
                assert!(error <= allowed, "{what}[{i}]: {found}, PyTorch's {expected}; {error:.1e} > {allowed:.1e}");
            }
        };
        compare("y", &found.y, &self.y);
        compare("dx", &found.dx, &self.dx);
        for (what, found, expected) in
            [("gradient of", &found.dparams, &self.dparams), ("state", &found.state, &self.state)]
        {
            let (found_names, names): (Vec<_>, Vec<_>) = (found.keys().collect(), expected.keys().collect());
            assert_eq!(found_names, names, "{}: {what}", self.name);
            for (name, expected) in expected {
                compare(&format!("{what} {name}"), &found[name], expected);
            }
        }
    }
}

#[test]
fn every_layer_agrees_in_f64() {
    for case in cases() {
        case.check::<f64>(case.m, 1e-9);
    }
}

#[test]
fn every_layer_agrees_with_the_fast_kernels() {
    for case in cases() {
        case.check::<f32>(case.m, 2e-5);
    }
}

/// A ragged last micro-batch is smaller than what the workspace was planned for.
#[test]
fn fewer_samples_than_planned_agree() {
    for case in cases() {
        case.check::<f64>(case.m + 2, 1e-9);
        case.check::<f32>(case.m + 5, 2e-5);
    }
}

#[test]
fn every_layer_of_the_registry_has_a_case() {
    let cases = cases();
    for entry in REGISTRY {
        let has = cases.iter().any(|case| case.layer["type"].as_str() == Some(entry.name));
        assert!(has, "{}: add a case to tests/golden/make_layers.py and run it", entry.name);
    }
    for case in &cases {
        let known = REGISTRY.iter().any(|entry| case.layer["type"].as_str() == Some(entry.name));
        assert!(known, "{}: no such layer", case.name);
    }
}
