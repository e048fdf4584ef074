//! A job on broken input, on two ranks.

use super::{Ended, ended};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

pub const LIMIT: Duration = Duration::from_secs(20);

pub const JOB: &str = r#"name = "t"
seed = 1
[data]
source = "synthetic"
shape = [4]
classes = 3
samples = 64
test_samples = 16
[model]
layers = [{ type = "linear", out_features = 3 }]
[loss]
type = "cross_entropy"
[optimizer]
type = "sgd"
lr = 0.1
[train]
epochs = 1
batch_size = 16
micro_batch = 4
"#;

/// A folder with `job.toml`, and what is put beside it.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("job.toml", JOB);
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Trains on two ranks with changes to the job.
    pub fn train(&self, set: &[&str]) -> Ended {
        let (job, out) = (self.text("job.toml"), self.text("out"));
        let mut args = vec!["train", &job, "--out", &out];
        args.extend(set.iter().flat_map(|change| ["--set", change]));
        ended(2, "", &args, LIMIT)
    }

    /// Trains on a file or folder here by a source.
    pub fn on(&self, source: &str, name: &str, more: &str) -> Ended {
        self.train(&[&format!("data={{ source = \"{source}\", path = \"{}\"{more} }}", self.text(name))])
    }
}

/// Both ranks ended with `code`, and one line says so with all of `parts`.
#[track_caller]
pub fn refused(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.codes, [code, code], "{ended:?}");
    let [line] = &ended.errors[..] else { panic!("not one error line: {ended:?}") };
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}
