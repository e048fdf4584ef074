//! `tfrecord`: TensorFlow's record files of `tf.train.Example`, with the features that the job declares.

use super::Source;
use super::table::{self, Kind, Layout, Meaning};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::data::format::Table;
use crate::data::format::files::files;
use crate::data::format::image::Picture;
use crate::data::format::raw::{Dtype, Form};
use crate::data::format::tfrecord::{Declaration, Declared, read};
use crate::data::transform::encode::Missing;
use crate::data::{Dataset, Input};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(super) const SOURCE: Source = Source {
    name: "tfrecord",
    doc: "TFRecord files of `tf.train.Example`, plain, gzip or zlib: a file, a folder or a pattern such as `train-*`",
    keys: &[
        (
            "features",
            "what each example holds: `{ image = { type = \"bytes\", dtype = \"uint8\", shape = [28, 28, 1] }, label = { \
             type = \"int64\" } }`; types: int64, float, text, bytes, image (PNG or JPEG, with `size` and `channels`)",
        ),
        ("target", "the feature to predict"),
        ("targets", "several features to predict, instead of `target`"),
        ("task", "\"values\" or \"classes\" (none: classes for texts, and where the input is an array)"),
        ("missing", "\"drop\" rows that lack a number, or fill it by the \"mean\" or a number (\"drop\")"),
        ("layout", "of images in a `shape`: \"hwc\" or \"chw\" (\"hwc\")"),
        ("test_path", "the files to test on (none: the last records)"),
        ("test_fraction", "without test_path, the share of records at the end to test on (0.2)"),
    ],
    open,
    open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Named(NormalizeMethod::Standard),
};

const ENDINGS: &[&str] = &[".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz", ".gz", ".zlib"];

#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Feature {
    Int64 {
        #[serde(default)]
        shape: Vec<usize>,
    },
    Float {
        #[serde(default)]
        shape: Vec<usize>,
    },
    Text {},
    Bytes {
        dtype: Dtype,
        shape: Vec<usize>,
    },
    Image {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<(usize, usize)>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channels: Option<usize>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    target: String,
    targets: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Kind>,
    missing: Missing,
    layout: Layout,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_path: Option<PathBuf>,
    test_fraction: f64,
    features: BTreeMap<String, Feature>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            target: String::new(),
            targets: Vec::new(),
            task: None,
            missing: Missing::default(),
            layout: Layout::Last,
            test_path: None,
            test_fraction: 0.2,
            features: BTreeMap::new(),
        }
    }
}

impl Keys {
    fn of(config: &DataConfig) -> Result<Self> {
        let keys: Self = config.source.parse()?;
        let meaning = keys.meaning();
        meaning.check(config)?;
        if let Some(unknown) = meaning.targets.iter().find(|name| !keys.features.contains_key(*name)) {
            let what = format!("the target \"{unknown}\" is none of the features");
            return Err(config.source.error("features", what, "declare it in data.features with its type"));
        }
        for feature in keys.features.values() {
            if let Feature::Image { size, channels } = feature {
                Picture::check(config, *size, *channels)?;
            }
        }
        Ok(keys)
    }

    fn meaning(&self) -> Meaning<'_> {
        Meaning {
            targets: if self.targets.is_empty() { vec![self.target.clone()] } else { self.targets.clone() },
            features: &[],
            task: self.task,
            missing: self.missing,
            // Pictures are decoded so.
            layout: if self.features.values().any(|f| matches!(f, Feature::Image { .. })) {
                Layout::Last
            } else {
                self.layout
            },
            test_fraction: self.test_fraction,
        }
    }

    /// The declared features in the files at `path`, with or without the targets.
    fn read(&self, path: &Path, targets: bool) -> Result<Table> {
        let known = self.meaning().targets;
        let wanted = self.features.iter().filter(|(name, _)| targets || !known.contains(name));
        let declared: Vec<Declared> = wanted
            .map(|(name, feature)| {
                let kind = match feature.clone() {
                    Feature::Int64 { shape } => Declaration::Integers(shape),
                    Feature::Float { shape } => Declaration::Floats(shape),
                    Feature::Text {} => Declaration::Text,
                    Feature::Bytes { dtype, shape } => Declaration::Bytes(Form::Raw(dtype, shape)),
                    Feature::Image { size, channels } => {
                        Declaration::Bytes(Form::Picture(Picture { size, resize: size.is_some(), channels }))
                    }
                };
                Declared { name: name.clone(), kind }
            })
            .collect();
        read(&files(path, ENDINGS)?, &declared)
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
