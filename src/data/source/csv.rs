//! `csv`: rows of numbers and texts with a header.

use super::Source;
use super::table::{self, Kind, Layout, Meaning, table_docs, table_keys};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::data::format::csv_table::{CsvTables, Holds, Wanted, Wish};
use crate::data::format::files::files;
use crate::data::format::{Table, Tables};
use crate::data::{Dataset, Input};
use crate::error::Result;
use crate::input::Encoded;
use std::path::Path;

pub(super) const SOURCE: Source = Source {
    name: "csv",
    doc: "rows with a header, plain or .gz: a file, a folder or a pattern such as `part-*.csv`",
    keys: table_docs![
        ("features", "the columns to predict from ([]: all others)"),
        ("categories", "columns that hold categories although they may look like numbers ([])"),
        ("task", "whether the target is a number (\"values\") or one of \"classes\" (\"values\")"),
        ("delimiter", "between fields (\",\")"),
    ],
    open,
    open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Named(NormalizeMethod::Standard),
};

const ENDINGS: &[&str] = &[".csv", ".csv.gz", ".tsv", ".tsv.gz"];

table_keys! {
    features: Vec<String> = Vec::new(),
    categories: Vec<String> = Vec::new(),
    task: Kind = Kind::Values,
    delimiter: String = ",".into(),
}

/// The keys, and what the columns mean.
fn keys(config: &DataConfig) -> Result<(Keys, Meaning)> {
    let keys: Keys = config.source.parse()?;
    let meaning = keys.meaning(config, keys.features.clone(), Some(keys.task), Layout::First)?;
    Ok((keys, meaning))
}

impl Keys {
    /// The columns that a job wants. With the `trained` input, each holds what it held, and no other is wanted.
    fn wanted(&self, config: &DataConfig, meaning: &Meaning, trained: Option<&Input>) -> Result<Wanted> {
        let delimiter = match self.delimiter.as_bytes() {
            [byte] if byte.is_ascii() && !b"\"\r\n".contains(byte) => *byte,
            _ => {
                return Err(config.source.error("delimiter", "not one ASCII character", "use \",\", \";\" or \"\\t\""));
            }
        };
        let mut columns: Vec<Wish> = Vec::new();
        let mut wish = |name: &String, holds: Holds, required: bool| {
            if !columns.iter().any(|known| known.name == *name) {
                columns.push(Wish { name: name.clone(), holds, required });
            }
        };
        for name in &meaning.targets {
            let holds = match (self.task, &meaning.classes, trained) {
                (Kind::Values, ..) => Holds::Numbers,
                (Kind::Classes, Some(names), None) => Holds::OneOf(names.iter().cloned().collect()),
                (Kind::Classes, ..) => Holds::Texts,
            };
            // It may be a feature of windows, too.
            let is_feature = trained.is_some_and(|trained| trained.features.contains(name));
            wish(name, holds, trained.is_none() || is_feature);
        }
        if let Some(series) = &meaning.series {
            series.group.iter().for_each(|name| wish(name, Holds::Names, true));
            series.time.iter().for_each(|name| wish(name, Holds::Anything, true));
        }
        let Some(trained) = trained else {
            self.categories.iter().for_each(|name| wish(name, Holds::Texts, true));
            meaning.features.iter().for_each(|name| wish(name, Holds::Anything, true));
            return Ok(Wanted { delimiter, columns, others: meaning.features.is_empty(), of_file: None });
        };
        for column in &trained.encoding {
            match column {
                Encoded::Number { name, .. } => wish(name, Holds::Numbers, true),
                Encoded::Category { name, .. } => wish(name, Holds::Texts, true),
            }
        }
        if meaning.series.is_some() && trained.encoding.is_empty() {
            trained.features.iter().for_each(|name| wish(name, Holds::Numbers, true));
        }
        Ok(Wanted { delimiter, columns, others: false, of_file: None })
    }
}

fn read(path: &Path, wanted: Wanted) -> Result<Table> {
    CsvTables::open(files(path, ENDINGS)?, wanted)?.whole()
}

fn open(config: &DataConfig, seed: u64) -> Result<Dataset> {
    let (keys, meaning) = keys(config)?;
    let path = super::path(config)?;
    let wanted = keys.wanted(config, &meaning, None)?;
    let train = read(path, wanted.clone())?;
    let test = match &keys.test_path {
        Some(path) => {
            // The columns of the training file, whatever else there is.
            let same = train.columns.iter().map(|column| Wish {
                name: column.name.clone(),
                holds: wanted.holds(&column.name).unwrap_or_else(|| Holds::of(&column.cells)),
                required: true,
            });
            Some(read(path, Wanted { columns: same.collect(), others: false, ..wanted })?)
        }
        None => None,
    };
    let texts = CsvTables::texts(&train, &meaning.targets);
    let mut dataset = table::open(config, seed, path, &meaning, train, test)?;
    dataset.notes.extend(texts.filter(|_| meaning.series.is_none()));
    Ok(dataset)
}

fn open_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Result<super::Pieces> {
    let (keys, meaning) = keys(config)?;
    let tables = CsvTables::open(files(path, ENDINGS)?, keys.wanted(config, &meaning, Some(trained))?)?;
    Ok(table::inputs(trained, config, path, meaning, Box::new(tables), None))
}
