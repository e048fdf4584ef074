//! Data configurations and small files for the tests of data sources.
#![allow(dead_code)] // each test binary compiles all of it and uses a part

use ddl::config::{Component, DataConfig};
use ddl::data::{Dataset, Part, Targets};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub fn config(kind: &str, path: &Path, keys: &str) -> DataConfig {
    let text = format!("path = '{}'\n{keys}", path.display());
    DataConfig::from_component(Component::new(kind, &text).unwrap()).unwrap()
}

pub fn fill(data: &Dataset, part: Part, samples: &[u32]) -> (Vec<f32>, Targets) {
    let (mut x, mut targets) = (vec![f32::NAN; samples.len() * data.input().len()], Targets::default());
    data.fill(part, samples, None, &mut x, &mut targets);
    (x, targets)
}

pub fn failure(config: &DataConfig) -> (i32, String) {
    Dataset::open(config, 1).err().map(|e| (e.exit_code(), e.to_string())).expect("an error")
}

pub fn csv(text: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.csv");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}
