//! `tfrecord`: TensorFlow's record files of `tf.train.Example`, with the features that the job declares.

use super::Source;
use super::table::{self, Kind, Layout, Meaning, table_docs, table_keys};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::data::format::Tables;
use crate::data::format::files::files;
use crate::data::format::image::Picture;
use crate::data::format::raw::{Dtype, Form};
use crate::data::format::tfrecord::{Declaration, Declared, RecordTables};
use crate::data::{Dataset, Input};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) const SOURCE: Source = Source {
    name: "tfrecord",
    doc: "TFRecord files of `tf.train.Example`, plain, gzip or zlib: a file, a folder or a pattern such as `train-*`",
    keys: table_docs![
        (
            "features",
            "what each example holds: `{ image = { type = \"bytes\", dtype = \"uint8\", shape = [28, 28, 1] }, label = { \
             type = \"int64\" } }`; types: int64, float, text, bytes, image (PNG or JPEG, with `size` and `channels`)",
        ),
        ("task", "\"values\" or \"classes\" (none: classes for texts, and where the input is an array)"),
        ("layout", "of images in a `shape`: \"hwc\" or \"chw\" (\"hwc\")"),
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

table_keys! {
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Kind> = None,
    layout: Layout = Layout::Last,
    features: BTreeMap<String, Feature> = BTreeMap::new(),
}

/// The keys, and what the columns mean.
fn keys(config: &DataConfig) -> Result<(Keys, Meaning)> {
    let keys: Keys = config.source.parse()?;
    // Pictures are decoded so.
    let pictures = keys.features.values().any(|feature| matches!(feature, Feature::Image { .. }));
    let layout = if pictures { Layout::Last } else { keys.layout };
    let meaning = keys.meaning(config, Vec::new(), keys.task, layout)?;
    if let Some(unknown) = meaning.beside(true).iter().find(|name| !keys.features.contains_key(*name)) {
        let what = format!("the target \"{unknown}\" is none of the features");
        let what = if meaning.targets.contains(unknown) { what } else { format!("\"{unknown}\" is not among them") };
        return Err(config.source.error("features", what, "declare it in data.features with its type"));
    }
    for feature in keys.features.values() {
        if let Feature::Image { size, channels } = feature {
            Picture::check(config, *size, *channels)?;
        }
    }
    Ok((keys, meaning))
}

impl Keys {
    /// The declared features in the files at `path`, with or without the targets.
    fn tables(&self, path: &Path, meaning: &Meaning, targets: bool) -> Result<RecordTables> {
        let wanted = self.features.iter().filter(|(name, _)| targets || !meaning.targets.contains(name));
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
        RecordTables::new(files(path, ENDINGS)?, declared)
    }
}

fn open(config: &DataConfig, seed: u64) -> Result<Dataset> {
    let (keys, meaning) = keys(config)?;
    let path = super::path(config)?;
    let read = |path: &Path| keys.tables(path, &meaning, true)?.whole();
    let train = read(path)?;
    let test = keys.test_path.as_deref().map(read).transpose()?;
    table::open(config, seed, path, &meaning, train, test)
}

fn open_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Result<super::Pieces> {
    let (keys, meaning) = keys(config)?;
    let tables = |targets| -> Result<Box<dyn Tables>> { Ok(Box::new(keys.tables(path, &meaning, targets)?)) };
    let (with, without) = (tables(true)?, tables(false)?);
    Ok(table::inputs(trained, config, path, meaning, with, Some(without)))
}
