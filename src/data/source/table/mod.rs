//! What columns mean, for every source of named columns: one column of arrays, or several of numbers and texts, are the
//! input, or windows over rows ([`series`]); others are the targets.

mod array;
mod clock;
mod layout;
pub(super) mod series;
mod split;
mod target;

pub(super) use split::Split;

use super::normalization;
use crate::config::DataConfig;
use crate::data::dataset::Numbers;
use crate::data::format::{Cells, Table, Tables};
use crate::data::sample::float::{Floats, channels};
use crate::data::sample::pixel::summaries;
use crate::data::transform::encode::{Encoder, Missing, require};
use crate::data::transform::normalize::{Scaling, Summary};
use crate::data::transform::split::{Selection, learnt};
use crate::data::{Dataset, Input};
use crate::error::{Error, Result};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What targets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Classes,
    Values,
}

/// Where the channels of an image in an array are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Layout {
    /// (C, H, W), as torch.
    #[serde(rename = "chw")]
    First,
    /// (H, W, C), as TensorFlow.
    #[serde(rename = "hwc")]
    Last,
}

/// Which columns are what.
pub(super) struct Meaning {
    pub targets: Vec<String>,
    /// None: all others.
    pub features: Vec<String>,
    /// None: as the columns are.
    pub task: Option<Kind>,
    /// The classes, where the job names them.
    pub classes: Option<Vec<String>>,
    pub missing: Missing,
    pub layout: Layout,
    /// The share of the rows to test on, where no table is given for it.
    pub test_fraction: f64,
    pub split: Split,
    /// Where samples are windows over rows.
    pub series: Option<series::Keys>,
}

/// The keys that every source of columns has, beside its own.
macro_rules! table_keys {
    ($($(#[$attribute:meta])* $own:ident: $type:ty = $default:expr,)*) => {
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Keys {
            target: String,
            targets: Vec<String>,
            $($(#[$attribute])* $own: $type,)*
            missing: crate::data::transform::encode::Missing,
            #[serde(skip_serializing_if = "Option::is_none")]
            classes: Option<crate::data::transform::label::Classes>,
            #[serde(skip_serializing_if = "Option::is_none")]
            test_path: Option<std::path::PathBuf>,
            test_fraction: f64,
            split: super::table::Split,
            #[serde(skip_serializing_if = "Option::is_none")]
            window: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            horizon: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            group: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            time: Option<String>,
        }

        impl Default for Keys {
            fn default() -> Self {
                Self {
                    target: String::new(),
                    targets: Vec::new(),
                    $($own: $default,)*
                    missing: Default::default(),
                    classes: None,
                    test_path: None,
                    test_fraction: 0.2,
                    split: super::table::Split::Last,
                    window: None,
                    horizon: None,
                    group: None,
                    time: None,
                }
            }
        }

        impl Keys {
            /// What the columns mean. Errors: keys that do not go together.
            fn meaning(
                &self,
                config: &crate::config::DataConfig,
                features: Vec<String>,
                task: Option<super::table::Kind>,
                layout: super::table::Layout,
            ) -> crate::error::Result<super::table::Meaning> {
                let targets = if self.targets.is_empty() { vec![self.target.clone()] } else { self.targets.clone() };
                let series = super::table::series::Keys {
                    window: self.window.unwrap_or_default(),
                    horizon: self.horizon.unwrap_or(1),
                    group: self.group.clone(),
                    time: self.time.clone(),
                    learnt: 1.0 - self.test_fraction,
                    ..Default::default()
                };
                let meaning = super::table::Meaning {
                    targets,
                    features,
                    task,
                    classes: self.classes.as_ref().map(|classes| classes.names(config)).transpose()?,
                    missing: self.missing,
                    layout,
                    test_fraction: self.test_fraction,
                    split: self.split,
                    series: self.window.is_some().then_some(series),
                };
                let alone = [
                    ("horizon", self.horizon.is_some()),
                    ("group", self.group.is_some()),
                    ("time", self.time.is_some()),
                ];
                meaning.check(config, self.test_path.is_some(), &alone)?;
                Ok(meaning)
            }
        }
    };
}
pub(super) use table_keys;

/// For the documentation of the keys that every source of columns has; own ones come first.
macro_rules! table_docs {
    ($($own:expr,)*) => {
        &[
            ("target", "the column to predict"),
            ("targets", "several columns to predict, instead of `target`"),
            $($own,)*
            ("missing", "\"drop\" rows that lack a value, or fill it by the \"mean\" or a number (\"drop\")"),
            crate::data::transform::label::Classes::KEY,
            ("test_path", "other files to test on (none: some of the rows)"),
            ("test_fraction", "without test_path, the share of rows to test on (0.2)"),
            (
                "split",
                "which rows to test on: \"last\", \"shuffled\" (by the job's seed) or \"stratified\" (so, of each class) \
                 (\"last\")",
            ),
            ("window", "rows that the network sees: samples are windows over rows, cut in time (none: a row is a sample)"),
            ("horizon", "of windows, how many rows ahead the target is (1: the next)"),
            ("group", "of windows, the column that tells series apart (none: there is one series)"),
            ("time", "of windows, the column of dates, times or numbers to sort by (none: the file's order)"),
        ]
    };
}
pub(super) use table_docs;

impl Meaning {
    /// Checks the keys. Errors: no target, a share that is none, keys that do not go together.
    pub fn check(&self, config: &DataConfig, test_path: bool, alone: &[(&str, bool)]) -> Result<()> {
        let error = |key: &str, what: String, mend: &str| Err(config.source.error(key, what, mend));
        if self.targets.iter().all(String::is_empty) {
            let mend = "set data.target to the name of the column to predict, or data.targets to several";
            return error("target", "no column to predict is named".into(), mend);
        }
        if !(0.0..1.0).contains(&self.test_fraction) {
            let what = format!("{} is no share below 1", self.test_fraction);
            return error("test_fraction", what, "use 0 to below 1, such as 0.2");
        }
        if self.task == Some(Kind::Values) {
            let mend = "set data.task to \"classes\" or leave it out";
            if self.classes.is_some() {
                return error("classes", "classes, where the task is values".into(), mend);
            }
            if self.split == Split::Stratified {
                return error("split", "by classes, where the task is values".into(), mend);
            }
        }
        if test_path && self.split != Split::Last {
            let mend = "leave out data.split or data.test_path";
            return error("split", "nothing is split where test_path is given".into(), mend);
        }
        match &self.series {
            Some(keys) => keys.check(config, self, test_path),
            None => match alone.iter().find(|(_, given)| *given) {
                Some((key, _)) => error(key, "is of windows, and there is no window".into(), "set data.window"),
                None => Ok(()),
            },
        }
    }

    /// The columns that are wanted beside the features, with the targets or without.
    pub fn beside(&self, targets: bool) -> Vec<String> {
        let of_series = self.series.iter().flat_map(|keys| keys.group.iter().chain(&keys.time));
        let targets = self.targets.iter().filter(|name| targets && !self.features.contains(name));
        targets.chain(of_series).cloned().collect()
    }

    /// The columns to predict from.
    fn features(&self, table: &Table) -> Vec<String> {
        if self.features.is_empty() {
            table.names().into_iter().filter(|name| !self.targets.contains(name)).collect()
        } else {
            self.features.clone()
        }
    }

    /// The name of the one column of arrays, if that is the input.
    fn array(&self, table: &Table, path: &Path) -> Result<Option<String>> {
        match &self.features(table)[..] {
            [] => Err(Error::data(path.display().to_string(), "no column but the target", "give a file with features")),
            [name] => match &require(table, name, path)?.cells {
                Cells::Arrays(_) => Ok(Some(name.clone())),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

/// The data set in a table for training and one for tests; without that, some of the rows.
pub(super) fn open(
    config: &DataConfig,
    seed: u64,
    path: &Path,
    meaning: &Meaning,
    train: Table,
    test: Option<Table>,
) -> Result<Dataset> {
    if let Some(keys) = &meaning.series {
        return series::open(config, path, meaning, keys, train);
    }
    if let Some(name) = meaning.array(&train, path)? {
        return array::open(config, seed, path, meaning, &name, train, test);
    }
    let normalize = normalization(config)?;
    let names = meaning.features(&train);
    let of_file = |table: &Table| -> Result<Vec<u32>> {
        let mut whole = vec![true; table.rows];
        // Types alone matter here: what is filled in is fitted on the training part, below.
        Encoder::fit(table, &[], &names, meaning.missing.unfitted(), path)?.mark(table, &mut whole, path)?;
        for name in &meaning.targets {
            require(table, name, path)?.cells.mark(&mut whole);
        }
        Ok((0..table.rows as u32).filter(|&row| whole[row as usize]).collect())
    };
    let rows = match &test {
        Some(test) => [of_file(&train)?, of_file(test)?],
        None => split::parts(meaning, seed, of_file(&train)?, &train),
    };
    if rows[0].is_empty() {
        return Err(Error::data(path.display().to_string(), "there is no training sample", "give more data"));
    }
    let tables = [&train, test.as_ref().unwrap_or(&train)];
    let encoder = Encoder::fit(&train, &rows[0], &names, meaning.missing, path)?;
    let f = encoder.names().len();
    if f == 0 {
        return Err(Error::data(path.display().to_string(), "the features are empty", "give a file with features"));
    }
    let of = [encoder.encode(tables[0], &rows[0], path)?, encoder.encode(tables[1], &rows[1], path)?];
    let mut notes = vec![format!("{} training and {} test rows of {f} features", rows[0].len(), rows[1].len())];
    let all = train.rows + test.as_ref().map_or(0, |test| test.rows);
    match all - rows[0].len() - rows[1].len() {
        0 => {}
        dropped => notes.push(format!("{dropped} rows with missing values dropped")),
    }
    if of[1].unknown > 0 {
        notes.push(format!("{} texts of the test part are not in the training part", of[1].unknown));
    }
    let selection = Selection::drawn(config, seed, rows[0].len());
    let labels = target::labels((config, &selection), meaning, Kind::Values, tables, &rows, path)?;
    notes.extend(target::uneven(&labels));
    let missing = missing(names.iter().chain(&meaning.targets), &train, test.as_ref());
    let [train, test] = of.map(|rows| rows.values);
    let scaling = Scaling::new(config, &normalize, f, || Ok(Summary::of_channels(&learnt(&selection, &train, f), f)))?;
    let shape = Shape::Vector { n: f };
    let inputs = Floats::new(&path.display().to_string(), [train, test], shape, &scaling);
    let mut dataset = Dataset::new(config, shape, Box::new(inputs), labels, scaling, notes)?;
    dataset.columns = [encoder.names(), meaning.targets.clone()];
    dataset.encoding = encoder.columns;
    dataset.missing = missing;
    Ok(dataset.keep_back(selection))
}

/// Of each column that lacks values how many.
fn missing<'a>(names: impl Iterator<Item = &'a String>, train: &Table, test: Option<&Table>) -> Vec<(String, u64)> {
    let lacks = |table: &Table, name: &str| {
        let cells = table.column(name).map(|column| &column.cells);
        cells.map_or(0, |cells| (0..table.rows).filter(|&row| !cells.has(row)).count() as u64)
    };
    let of = names.map(|name| (name.clone(), lacks(train, name) + test.map_or(0, |test| lacks(test, name))));
    of.filter(|&(_, count)| count > 0).collect()
}

/// The inputs in `tables`, piece by piece; windows, which need what was before, in one. Where those cannot be read, such as for lack
/// of the targets, in `others`.
pub(super) fn inputs(
    trained: &Input,
    config: &DataConfig,
    path: &Path,
    meaning: Meaning,
    mut tables: Box<dyn Tables>,
    mut others: Option<Box<dyn Tables>>,
) -> super::Pieces {
    let (trained, config, path) = (trained.clone(), config.clone(), path.to_owned());
    Box::new(move |rows| {
        let rows = if meaning.series.is_some() { usize::MAX } else { rows };
        let table = match (tables.next(rows), others.take()) {
            (Err(_), Some(without)) => {
                tables = without;
                tables.next(rows)?
            }
            (table, _) => table?,
        };
        table.map(|table| open_inputs(&trained, &config, &path, &meaning, table)).transpose()
    })
}

/// The inputs in a table; with all targets beside them, those too.
fn open_inputs(trained: &Input, config: &DataConfig, path: &Path, meaning: &Meaning, table: Table) -> Result<Dataset> {
    if let Some(keys) = &meaning.series {
        return series::open_inputs(trained, config, path, meaning.missing, keys, table);
    }
    if trained.encoding.is_empty() {
        return array::open_inputs(trained, config, path, meaning, table);
    }
    let (shape, scaling) = (trained.shape, Scaling::of(trained));
    let encoder = Encoder { columns: trained.encoding.clone() };
    let mut whole = vec![true; table.rows];
    encoder.mark(&table, &mut whole, path)?;
    let rows: Vec<u32> = (0..table.rows as u32).filter(|&row| whole[row as usize]).collect();
    let encoded = encoder.encode(&table, &rows, path)?;
    let notes = match table.rows - rows.len() {
        0 => Vec::new(),
        dropped => vec![format!("{dropped} of {} rows have missing values, and no prediction", table.rows)],
    };
    let labels = target::known(trained, meaning, &table, &rows, path);
    let inputs = Floats::new(&path.display().to_string(), [Vec::new(), encoded.values], shape, &scaling);
    let mut new = Dataset::new(config, shape, Box::new(inputs), labels, scaling, notes)?;
    new.numbers = Some(Numbers { of: rows, rows: table.rows });
    Ok(new)
}
