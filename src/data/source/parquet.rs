//! `parquet`: columns of Parquet files, one or several to predict from others.

use super::Source;
use super::table::{self, Kind, Layout, Meaning, table_docs, table_keys};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::data::format::Tables;
use crate::data::format::files::files;
use crate::data::format::image::Picture;
use crate::data::format::parquet::{ParquetTables, Wanted};
use crate::data::format::raw::{Dtype, Form};
use crate::data::{Dataset, Input};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

pub(super) const SOURCE: Source = Source {
    name: "parquet",
    doc: "a Parquet file, a folder of them or a pattern such as `part-*.parquet`: columns to predict from others, or one \
          column of lists or pictures; texts become one number for each of theirs",
    keys: table_docs![
        ("features", "the columns to predict from ([]: all others)"),
        ("task", "\"values\" or \"classes\" (none: classes for texts, and where the input is a list or a picture)"),
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

table_keys! {
    features: Vec<String> = Vec::new(),
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Kind> = None,
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Vec<usize>> = None,
    layout: Layout = Layout::First,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Bytes> = None,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<(usize, usize)> = None,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<usize> = None,
}

/// The keys, and what the columns mean.
fn keys(config: &DataConfig) -> Result<(Keys, Meaning)> {
    let keys: Keys = config.source.parse()?;
    Picture::check(config, keys.size, keys.channels)?;
    let layout = if matches!(keys.bytes, Some(Bytes::Image(_))) { Layout::Last } else { keys.layout };
    let meaning = keys.meaning(config, keys.features.clone(), keys.task, layout)?;
    Ok((keys, meaning))
}

impl Keys {
    /// The table in the files at `path`; `targets`: whether they must be there.
    fn tables(&self, path: &Path, meaning: &Meaning, targets: bool) -> Result<ParquetTables> {
        let picture = Picture { size: self.size, resize: self.size.is_some(), channels: self.channels };
        let bytes = self.bytes.map(|bytes| match bytes {
            Bytes::Image(_) => Form::Picture(picture),
            Bytes::Raw(dtype) => Form::Raw(dtype, self.shape.clone().unwrap_or_default()),
        });
        let mut columns = self.features.clone();
        if !columns.is_empty() {
            columns.extend(meaning.beside(targets));
        }
        Ok(ParquetTables::new(files(path, ENDINGS)?, Wanted { columns, shape: self.shape.clone(), bytes }))
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
