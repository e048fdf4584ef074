//! Jobs that leave something over at every cut, and runs of them to compare.

use super::ddl_ok;
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
    let file = out.join("job.toml");
    fs::write(&file, job).unwrap();
    let (file, place) = (file.display().to_string(), out.display().to_string());
    ddl_ok(ranks, &[&["train", &file, "--out", &place], more].concat());
    let path = checkpoint::list(&out.join("checkpoints")).unwrap().pop().expect("a checkpoint");
    Run { run: read_run(&out.join("run.h5")).unwrap(), last: checkpoint::read(&path).unwrap(), path, out }
}

/// The columns of a run's epochs that are not times.
pub fn untimed(run: &RunSummary) -> impl Iterator<Item = &(String, Vec<f64>)> {
    run.epochs.iter().filter(|(name, _)| !["seconds", "samples_per_second"].contains(&name.as_str()))
}
