//! Jobs that leave something over at every cut, and runs of them to compare.

use super::{command, succeeded};
use ddl::store::{Checkpoint, RunSummary, checkpoint, read_run};
use std::fs;
use std::path::{Path, PathBuf};

/// A path in `data/`.
pub fn shipped(path: &str) -> String {
    format!("{}/data/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// 230 images in batches of 52, the last of 22: 13 micro-batches of 4, or 6 of which the last has 2, so one of 7 ranks
/// idles. Keys of `[train]` may follow.
pub fn images(channels: usize, optimizer: &str) -> String {
    format!(
        r#"
[data]
source = "synthetic"
shape = [3, 12, 12]
samples = 230
test_samples = 101
augment = [{{ type = "random_crop", padding = 2 }}, {{ type = "horizontal_flip", p = 0.5 }}]
[model]
layers = [
  {{ type = "conv2d", out_channels = {channels}, kernel_size = 3, padding = 1 }},
  {{ type = "batch_norm2d" }}, {{ type = "relu" }}, {{ type = "max_pool2d", kernel_size = 2 }},
  {{ type = "residual", layers = [
    {{ type = "conv2d", out_channels = {channels}, kernel_size = 3, padding = 1 }}, {{ type = "batch_norm2d" }},
  ] }},
  {{ type = "relu" }}, {{ type = "dropout", p = 0.2 }}, {{ type = "flatten" }}, {{ type = "linear", out_features = 10 }},
]
[loss]
type = "cross_entropy"
[optimizer]
{optimizer}
[train]
epochs = 2
batch_size = 52
micro_batch = 4
"#
    )
}

/// The job of [`images`] with images changed in every way and mixed, of unequal classes that are drawn and weighed.
pub fn changed(job: &str) -> String {
    let every = "augment = [
  { type = \"random_crop\", padding = 2, padding_mode = \"reflect\" }, { type = \"horizontal_flip\" },
  { type = \"vertical_flip\" }, { type = \"random_affine\", degrees = 10, translate = [0.1, 0.1], scale = [0.9, 1.1], shear = 5 },
  { type = \"random_crop\", padding = 1 }, { type = \"color_jitter\", brightness = 0.2, contrast = 0.2, saturation = 0.2 },
  { type = \"random_rotation\", degrees = 15 }, { type = \"random_erasing\" }, { type = \"mixup\", alpha = 0.4 },
]
sampling = \"balanced\"";
    let start = job.find("augment").expect("augmentation");
    let end = start + job[start..].find('\n').expect("a line");
    let weighed = "type = \"cross_entropy\"\nweight = \"balanced\"\nlabel_smoothing = 0.1";
    format!("{}{every}{}", &job[..start], &job[end..]).replacen("type = \"cross_entropy\"", weighed, 1)
}

/// The job of [`images`] with a gradient so long that hosts cut it in pieces, more than are under way at once.
pub fn wide(job: &str) -> String {
    let last = r#"{ type = "linear", out_features = 10 }"#;
    job.replacen(last, &format!(r#"{{ type = "linear", out_features = 1024 }}, {{ type = "relu" }}, {last}"#), 1)
}

/// 1,489 windows in batches of 106, the last of 5: 9 micro-batches of 12, or a single one, so that all ranks but one idle.
/// Keys of `[train]` may follow.
pub fn series(optimizer: &str) -> String {
    let path = shipped("sp500/index_daily.csv.gz");
    format!(
        r#"
[data]
source = "stocks"
path = "{path}"
window = 20
train_fraction = 0.3
[model]
layers = [
  {{ type = "lstm", hidden_size = 16, num_layers = 2, dropout = 0.2 }}, {{ type = "linear", out_features = 1 }},
]
[loss]
type = "mse"
[optimizer]
type = "{optimizer}"
lr = 0.001
[train]
epochs = 1
batch_size = 106
micro_batch = 12
"#
    )
}

/// The users' jobs by name, on what ships of their data; CIFAR-10 has none.
pub fn jobs() -> Vec<(&'static str, String)> {
    let images = "source = \"synthetic\"\nshape = [3, 32, 32]\nsamples = 640\ntest_samples = 64";
    let prices = format!("path = \"{}\"", shipped("sp500/index_daily.csv.gz"));
    let data = [
        ("mnist-cnn", "path", format!("path = \"{}\"", shipped("mnist"))),
        ("cifar10-bncnn", "source = \"cifar10\"\npath", images.into()),
        ("cifar10-simplecnn", "source = \"cifar10\"\npath", images.into()),
        ("sp500-lstm", "path", prices.clone()),
        ("sp500-mlp", "path", prices),
    ];
    let on = |(name, from, to): (&'static str, &str, String)| {
        let text = fs::read_to_string(format!("{}/jobs/{name}.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let start = text.find(&format!("\n{from}")).expect(from) + 1;
        let end = start + from.len() + text[start + from.len()..].find('\n').expect("a line");
        (name, format!("{}{to}{}", &text[..start], &text[end..]))
    };
    data.map(on).into()
}

/// Arguments that set keys, without evaluation before the end.
pub fn settings<'a>(keys: &[&'a str]) -> Vec<&'a str> {
    keys.iter().copied().chain(["train.evaluate_every=0"]).flat_map(|setting| ["--set", setting]).collect()
}

/// A finished run.
pub struct Run {
    /// Its folder.
    pub out: PathBuf,
    pub run: RunSummary,
    /// The newest checkpoint, and its file.
    pub last: Checkpoint,
    pub path: PathBuf,
}

/// Trains `job` on `ranks` ranks in a folder of its own; `more` arguments follow.
pub fn train(folder: &Path, job: &str, ranks: usize, more: &[&str]) -> Run {
    train_in(tempfile::tempdir_in(folder).unwrap().keep(), job, ranks, more)
}

/// The same in the folder `out`.
pub fn train_in(out: PathBuf, job: &str, ranks: usize, more: &[&str]) -> Run {
    train_under(None, out, job, ranks, more)
}

/// The same with the kernels of an instruction set.
pub fn train_under(isa: Option<&str>, out: PathBuf, job: &str, ranks: usize, more: &[&str]) -> Run {
    let file = out.join("job.toml");
    fs::write(&file, job).unwrap();
    let (file, place) = (file.display().to_string(), out.display().to_string());
    let mut command = command(ranks, &[&["train", &file, "--out", &place], more].concat());
    command.envs(isa.map(|isa| ("DDL_ISA", isa)));
    succeeded(&mut command);
    let path = checkpoint::list(&out.join("checkpoints")).unwrap().pop().expect("a checkpoint");
    Run { run: read_run(&out.join("run.h5")).unwrap(), last: checkpoint::read(&path).unwrap(), path, out }
}

/// The columns of a run's epochs that are not times.
pub fn untimed(run: &RunSummary) -> impl Iterator<Item = &(String, Vec<f64>)> {
    run.epochs.iter().filter(|(name, _)| !["seconds", "samples_per_second"].contains(&name.as_str()))
}
