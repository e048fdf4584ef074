//! `csv`: any table with a header: one column to predict from others.

use super::dataset::Inputs;
use super::delimited::Rows;
use super::float::Floats;
use super::label::Labels;
use super::normalize::{Scaling, Summary};
use super::{Dataset, Source};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::error::{Error, Result};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

pub(super) const SOURCE: Source = Source {
    name: "csv",
    doc: "a table with a header: one column to predict from the others; plain or .gz",
    keys: &[
        ("target", "the column to predict"),
        ("features", "the columns to predict from ([]: all others)"),
        ("task", "\"values\" or \"classes\" (\"values\")"),
        ("test_path", "a second file to test on (none: the last rows)"),
        ("test_fraction", "without test_path, the share of rows at the end to test on (0.2)"),
        ("delimiter", "between fields (\",\")"),
    ],
    open,
    open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Named(NormalizeMethod::Standard),
};

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Classes,
    Values,
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    target: String,
    features: Vec<String>,
    task: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_path: Option<PathBuf>,
    test_fraction: f64,
    delimiter: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            target: String::new(),
            features: Vec::new(),
            task: Kind::Values,
            test_path: None,
            test_fraction: 0.2,
            delimiter: ",".into(),
        }
    }
}

impl Keys {
    fn of(config: &DataConfig) -> Result<Self> {
        let keys: Self = config.source.parse()?;
        if keys.target.is_empty() {
            let mend = "set data.target to the name of the column to predict";
            return Err(config.source.error("target", "no column to predict is named", mend));
        }
        if !(0.0..1.0).contains(&keys.test_fraction) {
            let what = format!("{} is no share below 1", keys.test_fraction);
            return Err(config.source.error("test_fraction", what, "use 0 to below 1, such as 0.2"));
        }
        Ok(keys)
    }

    fn delimiter(&self, config: &DataConfig) -> Result<u8> {
        match self.delimiter.as_bytes() {
            [byte] if byte.is_ascii() && !b"\"\r\n".contains(byte) => Ok(*byte),
            _ => Err(config.source.error("delimiter", "not one ASCII character", "use \",\", \";\" or \"\\t\"")),
        }
    }
}

/// The rows of a file: features (N, F), and the target of each as text or number, if the file has it.
#[derive(Default)]
struct Read {
    names: Vec<String>,
    features: Vec<f32>,
    texts: Vec<String>,
    values: Vec<f64>,
    rows: usize,
    holes: usize,
}

/// Reads a file. `features` empty takes every column but the target; `need_target` makes a missing target an error.
fn read(path: &Path, keys: &Keys, delimiter: u8, features: &[String], need_target: bool) -> Result<Read> {
    let mut rows = Rows::open(path, delimiter)?;
    let target = if need_target { Some(rows.require(&keys.target)?) } else { rows.column(&keys.target) };
    let columns: Vec<usize> = if features.is_empty() {
        (0..rows.header().len()).filter(|&column| Some(column) != target).collect()
    } else {
        features.iter().map(|name| rows.require(name)).collect::<Result<_>>()?
    };
    if columns.is_empty() {
        let place = format!("{}:1", path.display());
        return Err(Error::data(place, "no column but the target", "give a file with features"));
    }
    let names = columns.iter().map(|&column| rows.header()[column].clone()).collect();
    let mut read = Read { names, ..Read::default() };
    'rows: while rows.next()? {
        let start = read.features.len();
        for &column in &columns {
            match rows.number(column)? {
                Some(value) => read.features.push(value as f32),
                None => {
                    read.features.truncate(start);
                    read.holes += 1;
                    continue 'rows;
                }
            }
        }
        let known = match target {
            None => true,
            Some(column) if keys.task == Kind::Values => rows.number(column)?.map(|v| read.values.push(v)).is_some(),
            Some(column) => {
                let text = rows.text(column)?;
                if !text.is_empty() {
                    read.texts.push(text.to_owned());
                }
                !text.is_empty()
            }
        };
        if known {
            read.rows += 1;
        } else {
            read.features.truncate(start);
            read.holes += 1;
        }
    }
    Ok(read)
}

fn open(config: &DataConfig, _seed: u64) -> Result<Dataset> {
    let keys = Keys::of(config)?;
    let delimiter = keys.delimiter(config)?;
    let path = super::path(config)?;
    let mut train = read(path, &keys, delimiter, &keys.features, true)?;
    let f = train.names.len();
    let test = match &keys.test_path {
        Some(path) => read(path, &keys, delimiter, &train.names, true)?,
        None => {
            let rows = (keys.test_fraction * train.rows as f64).round() as usize;
            train.rows -= rows;
            Read {
                features: train.features.split_off(train.rows * f),
                texts: train.texts.split_off(train.rows.min(train.texts.len())),
                values: train.values.split_off(train.rows.min(train.values.len())),
                rows,
                ..Read::default()
            }
        }
    };
    let mut notes = vec![format!("{} training and {} test rows of {f} features", train.rows, test.rows)];
    if train.holes + test.holes > 0 {
        notes.push(format!("{} rows with empty fields dropped", train.holes + test.holes));
    }
    let normalize = super::normalization(config)?;
    let labels = match keys.task {
        Kind::Values => Labels::values(config, &normalize, 1, [train.values, test.values])?,
        Kind::Classes => {
            let names = class_names(train.texts.iter().chain(&test.texts));
            let of = [indices(&names, &train.texts), indices(&names, &test.texts)].map(Option::unwrap_or_default);
            Labels::Classes { names, of }
        }
    };
    let scaling = Scaling::new(config, &normalize, f, || Ok(Summary::of_channels(&train.features, f)))?;
    let (place, input) = (path.display().to_string(), Shape::Vector { n: f });
    let inputs = Floats::new(&place, [train.features, test.features], input, &scaling)?;
    Dataset::new(config, input, Inputs::Floats(inputs), labels, scaling, notes)
}

fn open_inputs(dataset: &Dataset, config: &DataConfig, path: &Path) -> Result<Dataset> {
    let keys = Keys::of(config)?;
    let delimiter = keys.delimiter(config)?;
    let train = super::path(config)?;
    // The columns of the training file in its order, whatever the order here.
    let features = if keys.features.is_empty() {
        let rows = Rows::open(train, delimiter)?;
        let target = rows.require(&keys.target)?;
        let others = rows.header().iter().enumerate().filter(|&(column, _)| column != target);
        others.map(|(_, name)| name.clone()).collect()
    } else {
        keys.features.clone()
    };
    let read = read(path, &keys, delimiter, &features, false)?;
    let notes =
        if read.holes > 0 { vec![format!("{} rows with empty fields dropped", read.holes)] } else { Vec::new() };
    let labels = match &dataset.labels {
        Labels::Values { n, unit, .. } => Labels::Values { n: *n, of: [Vec::new(), read.values], unit: *unit },
        // A class that the job does not know has no index: then none is known.
        Labels::Classes { names, .. } => {
            let of = [Vec::new(), indices(names, &read.texts).unwrap_or_default()];
            Labels::Classes { names: names.clone(), of }
        }
        Labels::InWindows => Labels::InWindows,
    };
    let (place, input) = (path.display().to_string(), dataset.input());
    let inputs = Floats::new(&place, [Vec::new(), read.features], input, &dataset.scaling)?;
    Dataset::new(config, input, Inputs::Floats(inputs), labels, dataset.scaling.clone(), notes)
}

/// The distinct labels: by number if all are integers, else by letter.
fn class_names<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = texts.collect::<BTreeSet<_>>().into_iter().cloned().collect();
    if names.iter().all(|name| name.parse::<i64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
    }
    names
}

/// The index of every label's class, if each is among `names`.
fn indices(names: &[String], texts: &[String]) -> Option<Vec<u32>> {
    let index: HashMap<&String, u32> = names.iter().zip(0..).collect();
    texts.iter().map(|text| index.get(text).copied()).collect()
}
