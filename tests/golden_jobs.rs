//! Whole networks against PyTorch: the same weights and batches give the same losses, on one rank and on two.
//!
//! `golden/make_jobs.py` tells how the cases were made and where their data and weights come from. With GOLDEN_JOBS_DIR
//! set, the files of each case stay in a folder there, and `make_jobs.py --check` can read them.

mod support;

use ndarray::{Array1, ArrayD, IxDyn};
use ndarray_npy::NpzWriter;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde::Deserialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use support::{ddl, read_f64, value};
use toml::{Table, Value};

const SAMPLES: usize = 160;
const BATCH: usize = 16;
const MICRO_BATCH: usize = 8;
const EPOCHS: usize = 2;

/// Relative difference of a loss from PyTorch's that is always allowed.
const TOLERANCE: f64 = 1e-4;
/// What is allowed beyond it, in units of the deviation that rounding alone was seen to cause.
const DEVIATIONS: f64 = 2.0;

#[derive(Deserialize)]
struct Case {
    name: String,
    loss: String,
    optimizer: Table,
    input: Vec<usize>,
    layers: Vec<Table>,
    tensors: Vec<Tensor>,
    losses: Vec<f64>,
    deviation: Vec<f64>,
    value: Vec<(u32, u32, f32)>,
}

/// Starts as offset + bound * value(tag, i).
#[derive(Deserialize)]
struct Tensor {
    key: String,
    shape: Vec<usize>,
    tag: u32,
    bound: f32,
    offset: f32,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("golden/jobs.json")).unwrap()
}

impl Case {
    fn class(sample: usize) -> usize {
        7 * sample % 10
    }

    /// (N, C, H, W), (N, T, F) or (N, F).
    fn x(&self) -> ArrayD<f32> {
        let len = self.input.iter().product::<usize>();
        let shape: Vec<usize> = [&[SAMPLES], &self.input[..]].concat();
        let elements = (0..SAMPLES * len).map(|at| {
            let (sample, i) = (at / len, at % len);
            0.5 * value(1, at as u32) + 0.25 * value(50 + Self::class(sample) as u32, i as u32)
        });
        ArrayD::from_shape_vec(IxDyn(&shape), elements.collect()).unwrap()
    }

    fn classes(&self) -> Array1<i64> {
        (0..SAMPLES).map(|sample| Self::class(sample) as i64).collect()
    }

    /// (N, 1).
    fn targets(&self) -> ArrayD<f32> {
        let targets = (0..SAMPLES)
            .map(|sample| 0.5 * value(60, Self::class(sample) as u32) + 0.125 * value(3, sample as u32))
            .collect();
        ArrayD::from_shape_vec(IxDyn(&[SAMPLES, 1]), targets).unwrap()
    }

    /// `data.npz`: the test part is the training part again, since only training losses are compared.
    fn write_data(&self, folder: &Path) {
        let mut npz = NpzWriter::new(File::create(folder.join("data.npz")).unwrap());
        let x = self.x();
        for part in ["train", "test"] {
            npz.add_array(format!("x_{part}"), &x).unwrap();
            if self.loss == "cross_entropy" {
                npz.add_array(format!("y_{part}"), &self.classes()).unwrap();
            } else {
                npz.add_array(format!("y_{part}"), &self.targets()).unwrap();
            }
        }
        npz.finish().unwrap();
    }

    /// `weights.safetensors`.
    fn write_weights(&self, folder: &Path) {
        let bytes: Vec<Vec<u8>> = self.tensors.iter().map(Tensor::bytes).collect();
        let views =
            self.tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
                (&tensor.key, TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap())
            });
        serialize_to_file(views, None, &folder.join("weights.safetensors")).unwrap();
    }

    /// `job.toml`.
    fn write_job(&self, folder: &Path) {
        let table =
            |pairs: &[(&str, Value)]| Value::Table(pairs.iter().map(|(k, v)| ((*k).into(), v.clone())).collect());
        let layers = self.layers.iter().cloned().map(Value::Table).collect();
        let path = folder.join("data.npz").display().to_string();
        let job = table(&[
            ("name", self.name.as_str().into()),
            (
                "data",
                table(&[
                    ("source", "npz".into()),
                    ("path", path.into()),
                    ("shuffle", false.into()),
                    ("normalize", "none".into()),
                ]),
            ),
            ("model", table(&[("layers", Value::Array(layers))])),
            ("loss", table(&[("type", self.loss.as_str().into())])),
            ("optimizer", Value::Table(self.optimizer.clone())),
            (
                "train",
                table(&[
                    ("epochs", (EPOCHS as i64).into()),
                    ("batch_size", (BATCH as i64).into()),
                    ("micro_batch", (MICRO_BATCH as i64).into()),
                ]),
            ),
        ]);
        fs::write(folder.join("job.toml"), toml::to_string(&job).unwrap()).unwrap();
    }

    /// The loss of every step of a training on `ranks` ranks.
    fn train(&self, folder: &Path, ranks: usize) -> Vec<f64> {
        let [job, weights] = ["job.toml", "weights.safetensors"].map(|file| folder.join(file).display().to_string());
        let out = folder.join(format!("ranks-{ranks}"));
        if out.exists() {
            fs::remove_dir_all(&out).unwrap(); // of an earlier test run, in GOLDEN_JOBS_DIR
        }
        let output = ddl(ranks, &["train", &job, "--init", &weights, "--out", &out.display().to_string()]);
        assert!(
            output.status.success(),
            "{} on {ranks} ranks: {}\n{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        read_f64(out.join("run.h5"), "/metrics/step/loss")
    }

    fn compare(&self, ranks: usize, losses: &[f64]) {
        assert_eq!(losses.len(), self.losses.len(), "{} on {ranks} ranks: steps", self.name);
        for (step, (&found, &expected)) in losses.iter().zip(&self.losses).enumerate() {
            let difference = (found - expected).abs() / expected;
            let allowed = TOLERANCE.max(DEVIATIONS * self.deviation[step]);
            // Not `difference > allowed`: a loss that is not a number must fail too.
            assert!(
                difference <= allowed,
                "{} on {ranks} ranks, step {step}: loss {found}, PyTorch's {expected}; differ by {difference:.1e}, \
                 allowed {allowed:.1e}",
                self.name
            );
        }
    }
}

impl Tensor {
    fn bytes(&self) -> Vec<u8> {
        let len = self.shape.iter().product::<usize>() as u32;
        (0..len).flat_map(|i| (self.offset + self.bound * value(self.tag, i)).to_le_bytes()).collect()
    }
}

fn agrees_with_pytorch(name: &str) {
    let case = cases().into_iter().find(|case| case.name == name).expect("a case of jobs.json");
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("GOLDEN_JOBS_DIR").map(PathBuf::from);
    let folder = kept.as_deref().unwrap_or(temporary.path()).join(name);
    fs::create_dir_all(&folder).unwrap();
    case.write_data(&folder);
    case.write_weights(&folder);
    case.write_job(&folder);
    for ranks in [1, 2] {
        case.compare(ranks, &case.train(&folder, ranks));
    }
}

/// One test for each case, named for it, and one that no case of the file is left out.
macro_rules! golden {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            agrees_with_pytorch(stringify!($name));
        })+

        #[test]
        fn every_case_has_a_test() {
            let names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
            assert_eq!(names, [$(stringify!($name)),+]);
        }
    };
}

golden!(
    mnist_cnn_sgd,
    mnist_cnn_adam,
    cifar10_simplecnn_sgd,
    cifar10_simplecnn_adam,
    cifar10_bncnn_sgd,
    cifar10_bncnn_adam,
    sp500_lstm_sgd,
    sp500_lstm_adam,
    sp500_mlp_sgd,
    sp500_mlp_adam,
    mnist_cnn_gentle_adam,
    cifar10_simplecnn_gentle_adam,
    cifar10_bncnn_gentle_sgd,
    cifar10_bncnn_gentle_adam,
);

/// Each network is held to 1e-4 over all steps, with both optimizers.
#[test]
fn every_network_has_tight_cases() {
    let cases = cases();
    let tight = |case: &Case| case.deviation.iter().all(|deviation| DEVIATIONS * deviation <= TOLERANCE);
    for network in ["mnist_cnn", "cifar10_simplecnn", "cifar10_bncnn", "sp500_lstm", "sp500_mlp"] {
        for optimizer in ["sgd", "adam"] {
            let of_both =
                |case: &&Case| case.name.starts_with(network) && case.name.ends_with(&format!("_{optimizer}"));
            assert!(cases.iter().filter(of_both).any(tight), "{network} with {optimizer}");
        }
    }
}

#[test]
fn the_formula_is_pythons() {
    for (tag, i, expected) in cases().into_iter().flat_map(|case| case.value) {
        assert_eq!(value(tag, i).to_bits(), expected.to_bits(), "value({tag}, {i})");
    }
}
