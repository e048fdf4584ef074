//! Products in bf16 train as well as those in f32: gradients by layer, and whole trainings on shipped data.

mod support;

use ddl::config::{Component, Precision};
use ddl::layer::{Mode, Onto, Pass, REGISTRY};
use ddl::model::Model;
use ddl::shape::Shape;
use ddl::store::{RunSummary, Tensor, checkpoint, read_run};
use std::path::Path;
use support::{command, ddl_ok, value};

/// Of a tensor's norm: bf16 keeps 8 bits.
const TOLERANCE: f32 = 1e-2;
/// The same for layers so small that errors do not average out.
const TOLERANCE_SMALL: f32 = 2e-2;

fn filled(tag: u32, len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| value(tag, i)).collect()
}

/// Output, gradient of the input and gradients of the parameters of `layers` for `m` samples.
fn pass(precision: Precision, layers: &[Component], input: Shape, m: usize) -> Vec<Vec<f32>> {
    let mut model = Model::<f32>::with_precision(precision, layers, input, m + 1).unwrap();
    let (mut params, mut state) = (vec![0.0; model.layout().len()], vec![0.0; model.state_layout().len()]);
    model.initialise(1, &mut params, &mut state);
    let (mut statistics, mut dparams) = (state.clone(), vec![0.0; params.len()]);
    let mode = Mode::Train { seed: 1, step: 0, first: 0, share: 1.0 };
    let stack = &mut model.stack;
    stack.prepare(&params);
    stack.x(m).copy_from_slice(&filled(1, m * input.len()));
    let micro = Pass { m, mode, params: &params };
    stack.forward(micro, &state, &mut statistics);
    let y = stack.y(m).to_vec();
    let dy = stack.y_and_dy(m).1;
    dy.copy_from_slice(&filled(2, dy.len()));
    stack.backward(micro, &mut dparams, Onto::Add, true, usize::MAX, &mut |_| {});
    let dx = stack.dx(m).to_vec();
    [y, dx].into_iter().chain(model.layout().slots().iter().map(|slot| slot.read(&dparams))).collect()
}

/// Whether two passes agree to bf16's precision, and are not the same.
fn compare(layers: &[Component], input: Shape, m: usize, tolerance: f32) {
    let what = format!("{:?} on {m} of {input}", layers.iter().map(|layer| &layer.table).collect::<Vec<_>>());
    let [exact, rounded] = [Precision::F32, Precision::Bf16].map(|precision| pass(precision, layers, input, m));
    assert!(exact != rounded, "{what}: bf16 changes nothing");
    for (at, (exact, rounded)) in exact.iter().zip(&rounded).enumerate() {
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
        let error = norm(&mut exact.iter().zip(rounded).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied());
        // Not `error > ...`: what is not a number must fail too.
        assert!(error <= tolerance, "{what}: tensor {at} is off by {error}: {exact:?} in f32, {rounded:?} in bf16");
    }
}

#[test]
fn gradients_of_linear_and_lstm_layers_are_near_those_of_f32() {
    for kind in ["gru", "lstm"] {
        let entry = REGISTRY.iter().find(|entry| entry.name == kind).unwrap();
        for example in entry.examples {
            compare(&[Component::new(kind, example.keys).unwrap()], example.input, 5, TOLERANCE_SMALL);
        }
    }
    let linear = Component::new("linear", "out_features = 7").unwrap();
    let lstm = |keys| Component::new("lstm", keys).unwrap();
    compare(&[linear], Shape::Vector { n: 700 }, 33, TOLERANCE);
    compare(&[lstm("hidden_size = 64\nnum_layers = 2")], Shape::Sequence { t: 12, f: 1 }, 16, TOLERANCE);
    compare(&[lstm("hidden_size = 37\nbidirectional = true")], Shape::Sequence { t: 7, f: 5 }, 15, TOLERANCE);
}

#[test]
fn products_too_small_to_be_packed_are_those_of_f32() {
    for (outputs, inputs, m) in [(3, 700, 33), (64, 700, 9)] {
        let linear = [Component::new("linear", &format!("out_features = {outputs}")).unwrap()];
        let of = |precision| pass(precision, &linear, Shape::Vector { n: inputs }, m);
        assert!(of(Precision::F32) == of(Precision::Bf16), "{inputs} to {outputs}, {m} samples");
    }
}

/// Trains the index job for so many epochs, products made as `DDL_BF16` says. The checkpoint's tensors, and what was printed.
fn forced(out: &Path, epochs: &str, precision: &str, products: &str, more: &[&str]) -> (Vec<Tensor>, String) {
    let root = env!("CARGO_MANIFEST_DIR");
    let (job, data) =
        (format!("{root}/jobs/sp500-mlp.toml"), format!("data.path={root}/data/sp500/index_daily.csv.gz"));
    let precision = format!("train.precision={precision}");
    let mut command = command(0, &["train", &job, "--out", out.to_str().unwrap(), "--set", &data, "--set", epochs]);
    let ran = command.args(["--set", &precision]).args(more).env("DDL_BF16", products).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let newest = checkpoint::list(&out.join("checkpoints")).unwrap().pop().unwrap();
    let found = checkpoint::read(&newest).unwrap();
    let expected = if precision.ends_with("bf16") && products == "pairs" { "bf16" } else { "f32" };
    assert_eq!(found.products, expected);
    (found.model, String::from_utf8(ran.stdout).unwrap() + &String::from_utf8(ran.stderr).unwrap())
}

#[test]
fn bf16_is_f32_where_it_is_no_faster_and_a_run_that_goes_on_otherwise_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let (exact, _) = forced(&out("f32"), "train.epochs=2", "f32", "pairs", &[]);
    let (none, said) = forced(&out("none"), "train.epochs=2", "bf16", "f32", &[]);
    assert!(exact == none, "products were not f32");
    assert!(said.contains("bf16   no faster than f32 on these CPUs, so products are f32"), "{said}");
    let (pairs, said) = forced(&out("pairs"), "train.epochs=1", "bf16", "pairs", &[]);
    assert!(pairs != exact && said.contains("bf16   products of linear, lstm and gru layers"), "{said}");
    let (whole, _) = forced(&out("whole"), "train.epochs=2", "bf16", "pairs", &[]);
    let copy = || {
        let to = tempfile::tempdir_in(folder.path()).unwrap().keep();
        std::fs::create_dir(to.join("checkpoints")).unwrap();
        for file in checkpoint::list(&out("pairs").join("checkpoints")).unwrap() {
            std::fs::copy(&file, to.join("checkpoints").join(file.file_name().unwrap())).unwrap();
        }
        to
    };
    let (same, said) = forced(&copy(), "train.epochs=2", "bf16", "pairs", &["--resume"]);
    assert!(same == whole && !said.contains("from here on"), "{said}");
    let (other, said) = forced(&copy(), "train.epochs=2", "bf16", "f32", &["--resume"]);
    assert!(other != whole, "products were bf16");
    let told = "products are f32 from here on, they were bf16: DDL_BF16=pairs goes on with the bits as they were";
    assert!(said.contains(told), "{said}");
}

/// Trains a shipped job for a few epochs.
fn train(job: &str, precision: &str, epochs: u64) -> RunSummary {
    let folder = tempfile::tempdir().unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    let (job, out) = (format!("{root}/jobs/{job}.toml"), folder.path().display().to_string());
    let path = std::fs::read_to_string(&job).unwrap();
    let path = path.lines().find_map(|line| line.strip_prefix("path = \"")).unwrap().trim_end_matches('"');
    let set =
        [format!("data.path={root}/{path}"), format!("train.epochs={epochs}"), format!("train.precision={precision}")];
    let set = set.iter().flat_map(|assignment| ["--set", assignment]);
    let args: Vec<&str> = ["train", &job, "--out", &out].into_iter().chain(set).collect();
    let (stdout, _) = ddl_ok(0, &args);
    assert_eq!(stdout.contains("\nbf16 "), precision == "bf16", "{stdout}");
    read_run(&folder.path().join("run.h5")).unwrap()
}

fn last(run: &RunSummary, column: &str) -> f64 {
    *run.epoch_column(column).unwrap().last().unwrap()
}

#[test]
fn digits_are_learnt_as_well_as_in_f32() {
    let [exact, rounded] = ["f32", "bf16"].map(|precision| last(&train("example", precision, 5), "test_accuracy"));
    assert!(exact > 0.95 && rounded > exact - 0.015, "{exact} in f32, {rounded} in bf16");
}

#[test]
fn the_index_is_predicted_as_well_as_in_f32() {
    let [exact, rounded] = ["f32", "bf16"].map(|precision| last(&train("sp500-mlp", precision, 15), "test_rmse"));
    assert!(rounded < 1.15 * exact, "root mean square error: {exact} in f32, {rounded} in bf16");
}
