//! `stocks`: windows over daily prices, one series a ticker.

use super::Source;
use super::table::series::{self, Keys as SeriesKeys};
use super::table::{Kind, Layout, Meaning, Split};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::data::format::csv_table::{CsvTables, Holds, Wanted, Wish};
use crate::data::format::files::files;
use crate::data::format::{Table, Tables};
use crate::data::inputs::one_piece;
use crate::data::transform::encode::Missing;
use crate::data::{Dataset, Input};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

pub(super) const SOURCE: Source = Source {
    name: "stocks",
    doc: "daily prices: a CSV of all tickers, of one, or a folder of one CSV a ticker; plain or .gz",
    keys: &[
        ("column", "the price to learn (\"close\")"),
        ("window", "rows the network sees (60)"),
        ("horizon", "rows ahead that it predicts (1: the next)"),
        ("tickers", "which to take ([]: all)"),
        ("train_fraction", "the first part of each series, to learn from (0.8)"),
    ],
    open,
    open_inputs: |trained, config, path| open_inputs(trained, config, path).map(one_piece),
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Named(NormalizeMethod::Minmax),
};

const ENDINGS: &[&str] = &[".csv", ".csv.gz"];
const TICKER: &str = "name";
const DATE: &str = "date";

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    column: String,
    window: usize,
    horizon: usize,
    tickers: Vec<String>,
    train_fraction: f64,
}

impl Default for Keys {
    fn default() -> Self {
        Self { column: "close".into(), window: 60, horizon: 1, tickers: Vec::new(), train_fraction: 0.8 }
    }
}

/// The keys as those of windows over any table.
fn keys(config: &DataConfig) -> Result<(Meaning, SeriesKeys)> {
    let keys: Keys = config.source.parse()?;
    if !(keys.train_fraction > 0.0 && keys.train_fraction <= 1.0) {
        let what = format!("{}", keys.train_fraction);
        return Err(config.source.error("train_fraction", what, "use more than 0 and at most 1, such as 0.8"));
    }
    let of_series = SeriesKeys {
        window: keys.window,
        horizon: keys.horizon,
        group: Some(TICKER.into()),
        time: Some(DATE.into()),
        select: keys.tickers,
        noun: "ticker",
        learnt: keys.train_fraction,
        fraction: "train_fraction",
        any_name: false,
    };
    let meaning = Meaning {
        targets: vec![keys.column.clone()],
        features: vec![keys.column],
        task: Some(Kind::Values),
        classes: None,
        missing: Missing::default(),
        layout: Layout::First,
        test_fraction: 0.0,
        split: Split::Last,
        series: None,
    };
    of_series.check(config, &meaning, false)?;
    Ok((meaning, of_series))
}

/// The prices in a file or folder, and whether the files name the tickers themselves.
fn read(path: &Path, column: &str) -> Result<(Table, bool)> {
    let wish = |name: &str, holds| Wish { name: name.into(), holds, required: true };
    let columns = vec![wish(DATE, Holds::Times), wish(column, Holds::Numbers), wish(TICKER, Holds::Names)];
    let wanted = Wanted { delimiter: b',', columns, others: false, of_file: Some(TICKER.into()) };
    let found = files(path, ENDINGS).map_err(|error| match path.is_dir() {
        true => {
            let mend = "set data.path to a CSV file or a folder of them";
            Error::data(path.display().to_string(), "no .csv or .csv.gz in the folder", mend)
        }
        false => error,
    })?;
    let mut tables = CsvTables::open(found, wanted)?;
    Ok((tables.whole()?, tables.named))
}

fn open(config: &DataConfig, _seed: u64) -> Result<Dataset> {
    let (meaning, keys) = keys(config)?;
    let path = super::path(config)?;
    let (table, _) = read(path, &meaning.targets[0])?;
    series::open(config, path, &meaning, &keys, table)
}

fn open_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Result<Dataset> {
    let (meaning, keys) = keys(config)?;
    let (table, named) = read(path, &meaning.targets[0])?;
    series::open_inputs(trained, config, path, meaning.missing, &SeriesKeys { any_name: !named, ..keys }, table)
}
