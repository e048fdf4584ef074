//! `parquet`: columns of Parquet files, one or several to predict from others.

use super::Source;
use super::table::{self, Kind, Layout, Meaning};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::data::format::Table;
use crate::data::format::files::files;
use crate::data::format::image::Picture;
use crate::data::format::parquet::{Wanted, read};
use crate::data::format::raw::{Dtype, Form};
use crate::data::transform::encode::Missing;
use crate::data::{Dataset, Input};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub(super) const SOURCE: Source = Source {
    name: "parquet",
    doc: "a Parquet file, a folder of them or a pattern such as `part-*.parquet`: columns to predict from others, or one \
          column of lists or pictures; texts become one number for each of theirs",
    keys: &[
        ("target", "the column to predict"),
        ("targets", "several columns to predict, instead of `target`"),
        ("features", "the columns to predict from ([]: all others)"),
        ("task", "\"values\" or \"classes\" (none: classes for texts, and where the input is a list or a picture)"),
        ("missing", "\"drop\" rows that lack a number, or fill it by the \"mean\" or a number (\"drop\")"),
        ("test_path", "the files to test on (none: the last rows)"),
        ("test_fraction", "without test_path, the share of rows at the end to test on (0.2)"),
        ("shape", "of lists and raw bytes, such as [1, 28, 28] (none: a row)"),
        ("layout", "of images in `shape`: \"chw\" or \"hwc\" (\"chw\")"),
        ("bytes", "what columns of bytes hold: \"image\" (PNG or JPEG) or a dtype such as \"uint8\" (none)"),
        ("size", "[height, width] to resize pictures to (none: all must be as the first)"),
        ("channels", "of pictures, 1 or 3 (none: as the first)"),
    ],
    open,
    open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Named(NormalizeMethod::Standard),
};

const ENDINGS: &[&str] = &[".parquet", ".parq"];

/// What bytes hold.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged, expecting = "is none of: \"image\", or a dtype such as \"uint8\" or \"float32\"")]
enum Bytes {
    Image(Image),
    Raw(Dtype),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Image {
    Image,
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    target: String,
    targets: Vec<String>,
    features: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Kind>,
    missing: Missing,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_path: Option<PathBuf>,
    test_fraction: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Vec<usize>>,
    layout: Layout,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<(usize, usize)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<usize>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            target: String::new(),
            targets: Vec::new(),
            features: Vec::new(),
            task: None,
            missing: Missing::default(),
            test_path: None,
            test_fraction: 0.2,
            shape: None,
            layout: Layout::First,
            bytes: None,
            size: None,
            channels: None,
        }
    }
}

impl Keys {
    fn of(config: &DataConfig) -> Result<Self> {
        let keys: Self = config.source.parse()?;
        keys.meaning().check(config)?;
        Picture::check(config, keys.size, keys.channels)?;
        Ok(keys)
    }

    fn meaning(&self) -> Meaning<'_> {
        let image = matches!(self.bytes, Some(Bytes::Image(_)));
        Meaning {
            targets: if self.targets.is_empty() { vec![self.target.clone()] } else { self.targets.clone() },
            features: &self.features,
            task: self.task,
            missing: self.missing,
            layout: if image { Layout::Last } else { self.layout },
            test_fraction: self.test_fraction,
        }
    }

    /// The table in the files at `path`; `targets`: whether they must be there.
    fn read(&self, path: &Path, targets: bool) -> Result<Table> {
        let picture = Picture { size: self.size, resize: self.size.is_some(), channels: self.channels };
        let bytes = self.bytes.map(|bytes| match bytes {
            Bytes::Image(_) => Form::Picture(picture),
            Bytes::Raw(dtype) => Form::Raw(dtype, self.shape.clone().unwrap_or_default()),
        });
        let mut columns = self.features.clone();
        if targets && !columns.is_empty() {
            columns.extend(self.meaning().targets);
        }
        read(&files(path, ENDINGS)?, &Wanted { columns, shape: self.shape.clone(), bytes })
    }
}

fn open(config: &DataConfig, seed: u64) -> Result<Dataset> {
    let keys = Keys::of(config)?;
    let path = super::path(config)?;
    let train = keys.read(path, true)?;
    let test = keys.test_path.as_deref().map(|path| keys.read(path, true)).transpose()?;
    table::open(config, seed, path, &keys.meaning(), train, test)
}

fn open_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Result<Dataset> {
    let keys = Keys::of(config)?;
    let table = keys.read(path, true).or_else(|_| keys.read(path, false))?;
    table::open_inputs(trained, config, path, &keys.meaning(), table)
}
