//! A job gives the same result at any number of ranks, since nothing but who computes it changes: losses, weights,
//! metrics and predictions, with ragged batches, ragged micro-batches and ranks that have nothing to do.

mod support;

use ddl::shard::{micro_batches, own};
use ndarray::{Array1, Array4};
use ndarray_npy::NpzWriter;
use std::fs::{self, File};
use support::training::{self, Run, shipped, train, untimed};
use support::{ddl, ddl_ok, value};

/// Losses and metrics may differ by this, relatively, and weights by this times the largest of their tensor.
const ROUNDING: f64 = 1e-4;
/// The same in bf16, where the last bit of an f32 may decide how a number of 8 bits is rounded.
const ROUNDING_BF16: f64 = 1e-2;

fn images() -> String {
    training::images(8, "type = \"sgd\"\nlr = 0.02\nmomentum = 0.9")
}

fn series() -> String {
    training::series("adam")
}

/// Digits, with clipping and a schedule.
fn digits() -> String {
    let path = shipped("mnist");
    format!(
        r#"
[data]
source = "mnist"
path = "{path}"
[model]
layers = [
  {{ type = "flatten" }}, {{ type = "linear", out_features = 20 }}, {{ type = "tanh" }},
  {{ type = "linear", out_features = 10 }},
]
[loss]
type = "cross_entropy"
[optimizer]
type = "adamw"
lr = 0.001
[schedule]
type = "cosine"
[train]
epochs = 1
batch_size = 250
micro_batch = 33
clip_norm = 1.0
"#
    )
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

impl Run {
    /// The same steps, metrics and weights to rounding, and in f32 the same accuracies to the bit.
    fn agrees(&self, other: &Run, what: &str, rounding: f64) {
        for (name, values) in &self.run.steps {
            let found = other.run.step_column(name).expect("the same columns");
            assert_eq!(values.len(), found.len(), "{what}: steps");
            for (step, (&a, &b)) in values.iter().zip(found).enumerate() {
                assert!(close(a, b, rounding), "{what}: {name} of step {}: {a} and {b}", step + 1);
            }
        }
        // Overlapping sums leave no gradient to measure it by.
        for (name, values) in untimed(&self.run).filter(|(name, _)| name != "noise_scale") {
            let found = other.run.epoch_column(name).expect("the same columns");
            let tolerance = if name.ends_with("accuracy") && rounding == ROUNDING { 0.0 } else { rounding };
            let same = values.len() == found.len() && values.iter().zip(found).all(|(&a, &b)| close(a, b, tolerance));
            assert!(same, "{what}: {name}: {values:?} and {found:?}");
        }
        assert_eq!(self.last.step, other.last.step, "{what}: steps");
        for (a, b) in self.last.model.iter().zip(&other.last.model) {
            assert_eq!((&a.key, &a.shape), (&b.key, &b.shape), "{what}");
            let largest = a.data.iter().fold(0f32, |most, v| most.max(v.abs()));
            let difference = a.data.iter().zip(&b.data).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            // Not `difference > ...`: what is not a number must fail too.
            assert!(
                difference <= rounding as f32 * largest,
                "{what}: {} differs by {difference:.1e} of {largest}",
                a.key
            );
        }
    }
}

const OVERLAP: [&str; 4] = ["--set", "distributed.overlap=true", "--set", "distributed.bucket_bytes=1024"];

/// Trains `job` on 1 rank and on others, and compares.
fn is_the_same_on_ranks(job: &str, ranks: &[usize], more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let alone = train(folder.path(), job, 0, &[]);
    for &ranks in ranks {
        let rounding = if job.contains("bf16") { ROUNDING_BF16 } else { ROUNDING };
        alone.agrees(&train(folder.path(), job, ranks, more), &format!("{ranks} ranks {more:?}"), rounding);
    }
}

#[test]
fn a_convolutional_network_is_the_same_at_any_rank_count() {
    is_the_same_on_ranks(&images(), &[1, 2, 3, 4, 6], &[]);
}

#[test]
fn sums_that_overlap_the_backward_pass_change_nothing() {
    is_the_same_on_ranks(&images(), &[3, 7], &OVERLAP);
}

#[test]
fn an_lstm_is_the_same_at_any_rank_count() {
    is_the_same_on_ranks(&series(), &[2, 3, 4, 7], &[]);
    is_the_same_on_ranks(&series(), &[3], &OVERLAP);
}

#[test]
fn an_mlp_is_the_same_at_any_rank_count() {
    is_the_same_on_ranks(&digits(), &[2, 3, 7], &[]);
}

#[test]
fn training_in_bf16_is_the_same_at_any_rank_count() {
    for job in [series(), digits()] {
        is_the_same_on_ranks(&format!("{job}precision = \"bf16\"\n"), &[2, 3, 7], &[]);
    }
}

#[test]
fn each_rank_may_have_its_own_batch() {
    let folder = tempfile::tempdir().unwrap();
    let global = train(folder.path(), &images(), 0, &["--set", "train.batch_size=60"]);
    let weak = images().replace("batch_size = 52", "batch_per_rank = 20");
    global.agrees(&train(folder.path(), &weak, 3, &[]), "20 samples on each of 3 ranks", ROUNDING);
}

#[test]
fn evaluation_is_exact_at_any_rank_count() {
    let folder = tempfile::tempdir().unwrap();
    for job in [images(), series()] {
        let trained = train(folder.path(), &job, 0, &["--set", "train.epochs=1"]);
        let checkpoint = trained.path.display().to_string();
        let evaluate = |ranks| -> serde_json::Value {
            let (stdout, _) = ddl_ok(ranks, &["evaluate", &checkpoint, "--json"]);
            serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"))
        };
        let alone = evaluate(0);
        // What the run itself wrote down.
        for (name, values) in trained.run.epochs.iter().filter(|(name, _)| name.starts_with("test_")) {
            let figure = alone[name].as_f64().unwrap_or_else(|| panic!("no {name} in {alone}"));
            assert!(close(figure, values[0], 1e-9), "{name}: {figure} and {}", values[0]);
        }
        for ranks in [1, 3, 7] {
            let found = evaluate(ranks);
            for (name, figure) in alone.as_object().unwrap() {
                match figure.as_f64().filter(|_| name.starts_with("test_") && name != "test_accuracy") {
                    Some(figure) => {
                        let other = found[name].as_f64().unwrap_or(f64::NAN);
                        assert!(close(figure, other, 1e-9), "{ranks} ranks: {name} {figure} and {other}");
                    }
                    None => assert_eq!(figure, &found[name], "{ranks} ranks: {name}"),
                }
            }
        }
    }
}

#[test]
fn predictions_are_the_same_bytes_at_any_rank_count() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("images.npz");
    let mut npz = NpzWriter::new(File::create(&file).unwrap());
    npz.add_array(
        "x",
        &Array4::from_shape_fn((45, 3, 12, 12), |(n, c, h, w)| value(n as u32, (c * 144 + h * 12 + w) as u32)),
    )
    .unwrap();
    npz.finish().unwrap();
    for (job, input) in [(images(), file), (series(), shipped("sp500/index_daily.csv.gz").into())] {
        let trained = train(folder.path(), &job, 0, &["--set", "train.epochs=1"]);
        let predict = |ranks: usize| {
            let out = folder.path().join(format!("on-{ranks}.csv"));
            let [checkpoint, input, to] = [&trained.path, &input, &out].map(|path| path.display().to_string());
            ddl_ok(ranks, &["predict", &checkpoint, "--input", &input, "--out", &to]);
            fs::read(out).unwrap()
        };
        let alone = predict(0);
        assert!(alone.iter().filter(|byte| **byte == b'\n').count() > 45, "a line a sample");
        for ranks in [2, 7] {
            assert!(predict(ranks) == alone, "{ranks} ranks predict otherwise than one");
        }
    }
}

/// With a learning rate of nothing, the training loss of an epoch is that of the data, each sample once.
#[test]
fn an_epoch_trains_on_every_sample_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.npz");
    let mut npz = NpzWriter::new(File::create(&data).unwrap());
    let x = Array4::from_shape_fn((83, 1, 5, 5), |(n, _, h, w)| 3.0 * value(n as u32, (h * 5 + w) as u32));
    let y: Array1<i64> = (0..83).map(|n| 5 * n % 7).collect();
    for part in ["train", "test"] {
        npz.add_array(format!("x_{part}"), &x).unwrap();
        npz.add_array(format!("y_{part}"), &y).unwrap();
    }
    npz.finish().unwrap();
    let job = format!(
        "[data]\nsource = \"npz\"\npath = \"{}\"\n[model]\nlayers = [{{ type = \"flatten\" }}, \
         {{ type = \"linear\", out_features = 7 }}]\n[loss]\ntype = \"cross_entropy\"\n[optimizer]\ntype = \"sgd\"\n\
         lr = 1e-30\n[train]\nepochs = 2\nbatch_size = 20\nmicro_batch = 3\n",
        data.display()
    );
    for ranks in [0, 4] {
        let Run { run, .. } = train(folder.path(), &job, ranks, &[]);
        for (part, tolerance) in [("loss", 1e-6), ("accuracy", 0.0)] {
            let [train, test] = ["train", "test"].map(|name| run.epoch_column(&format!("{name}_{part}")).unwrap());
            assert_eq!(train.len(), 2);
            for (a, b) in train.iter().zip(test) {
                assert!(close(*a, *b, tolerance), "{ranks} ranks: {part} {a} in training, {b} of the same samples");
            }
        }
    }
}

#[test]
fn ranks_share_each_batch_without_gap_or_overlap() {
    for (samples, batch, micro) in [(1, 1, 1), (83, 20, 3), (230, 52, 4), (1489, 106, 12), (64, 64, 64), (97, 96, 7)] {
        for ranks in [1, 2, 3, 4, 7, 16] {
            let mut order = vec![0; samples];
            ddl::rng::shuffle(5, 3, &mut order);
            let mut seen = vec![0; samples];
            for batch in order.chunks(batch) {
                let parts: Vec<_> = micro_batches(batch.len(), micro).collect();
                for rank in 0..ranks {
                    let mine = parts[own(parts.len(), rank, ranks)].iter().flat_map(|part| &batch[part.clone()]);
                    mine.for_each(|&sample| seen[sample as usize] += 1);
                }
            }
            assert!(seen.iter().all(|&times| times == 1), "{samples} samples in {batch} on {ranks} ranks");
        }
    }
}

#[test]
fn ranks_that_would_never_work_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.toml");
    fs::write(&job, images()).unwrap();
    let [job, out] = [&job, &folder.path().join("out")].map(|path| path.display().to_string());
    let output = ddl(3, &["train", &job, "--out", &out, "--set", "train.micro_batch=26"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("3 ranks") && stderr.contains("train.micro_batch"), "{stderr}");
}
