//! Windows over series in a file of arrays: an array (T) is a column, one of (T, ...) as many as a row has numbers, called
//! `name[0]`, `name[1]` or `name[0,1]`.

use super::array::{ArrayFile, Keys};
use super::table::{self, Kind, Layout, Meaning, Split, series};
use crate::config::DataConfig;
use crate::data::format::{Cells, Column, Table, Tables, Texts, file};
use crate::data::{Dataset, Input};
use crate::error::{Error, Result, shorten};
use crate::resource::memory;
use crate::store::table::{Array, Values};
use std::path::Path;

impl Keys {
    /// The first key of windows that is given although there is no window.
    pub fn of_windows_alone(&self) -> Option<&'static str> {
        let given = [
            ("horizon", self.horizon.is_some()),
            ("targets", self.targets.is_some()),
            ("features", self.features.is_some()),
            ("group", self.group.is_some()),
            ("time", self.time.is_some()),
            ("missing", self.missing.is_some()),
            ("test_fraction", self.test_fraction.is_some()),
        ];
        given.iter().find(|(_, given)| *given && self.window.is_none()).map(|(key, _)| *key)
    }

    /// What the columns mean, arrays still standing for all of theirs.
    fn meaning(&self, config: &DataConfig) -> Result<Meaning> {
        if self.classes.is_some() {
            let mend = "leave out data.classes";
            return Err(config.source.error("classes", "windows predict values, not classes", mend));
        }
        let test_fraction = self.test_fraction.unwrap_or(0.2);
        let meaning = Meaning {
            targets: self.targets.clone().unwrap_or_default(),
            features: self.features.clone().unwrap_or_default(),
            task: Some(Kind::Values),
            classes: None,
            missing: self.missing.unwrap_or_default(),
            layout: Layout::First,
            test_fraction,
            split: Split::Last,
            series: Some(series::Keys {
                window: self.window.unwrap_or_default(),
                horizon: self.horizon.unwrap_or(1),
                group: self.group.clone(),
                time: self.time.clone(),
                learnt: 1.0 - test_fraction,
                ..Default::default()
            }),
        };
        if meaning.targets.is_empty() {
            let mend = "set data.targets to the arrays to predict, such as [\"data\"] or [\"data[0]\"]";
            return Err(config.source.error("targets", "no array to predict is named", mend));
        }
        meaning.check(config, false, &[])?;
        Ok(meaning)
    }
}

/// The data set of windows over the arrays in a file.
pub(super) fn open(
    config: &DataConfig,
    seed: u64,
    path: &Path,
    keys: &Keys,
    file: &mut dyn ArrayFile,
) -> Result<Dataset> {
    let mut meaning = keys.meaning(config)?;
    let mut columns = Columns::default();
    for name in named(&meaning) {
        columns.add(path, file, name)?;
    }
    if meaning.features.is_empty() {
        // Without a choice, whatever goes on as long as the target.
        for name in file.names().to_vec() {
            columns.add_if_as_long(path, file, &name)?;
        }
    }
    meaning.targets = columns.expand(&meaning.targets);
    meaning.features = columns.expand(&meaning.features);
    table::open(config, seed, path, &meaning, columns.table, None)
}

/// The windows over the arrays in a file to predict from.
pub(super) fn open_inputs(
    trained: &Input,
    config: &DataConfig,
    path: &Path,
    keys: &Keys,
    file: &mut dyn ArrayFile,
) -> Result<super::Pieces> {
    let mut meaning = keys.meaning(config)?;
    let encoded = trained.encoding.iter().map(|column| column.name());
    let features = trained.features.iter().map(String::as_str).filter(|_| trained.encoding.is_empty());
    let apart = meaning.series.iter().flat_map(|keys| keys.group.iter().chain(&keys.time));
    let mut columns = Columns::default();
    for name in encoded.chain(features).chain(apart.map(String::as_str)) {
        columns.add(path, file, name)?;
    }
    for target in &trained.targets {
        // What is to be predicted need not be known.
        columns.add_if_as_long(path, file, target)?;
    }
    meaning.targets = trained.targets.clone();
    Ok(table::inputs(trained, config, path, meaning, Box::new(Whole(Some(columns.table))), None))
}

/// The columns that a job names, the targets first.
fn named(meaning: &Meaning) -> impl Iterator<Item = &String> {
    let apart = meaning.series.iter().flat_map(|keys| keys.group.iter().chain(&keys.time));
    meaning.targets.iter().chain(&meaning.features).chain(apart)
}

/// The array that a column is of: the one of its name, or of what is before its `[`.
fn array_of<'n>(name: &'n str, file: &dyn ArrayFile) -> Option<&'n str> {
    if file.has(name) {
        return Some(name);
    }
    let (array, _) = name.strip_suffix(']')?.rsplit_once('[')?;
    file.has(array).then_some(array)
}

/// Arrays of one length as columns.
#[derive(Default)]
struct Columns {
    table: Table,
    /// The arrays, and the columns of each.
    arrays: Vec<(String, Vec<String>)>,
}

impl Columns {
    fn knows(&self, array: &str) -> bool {
        self.arrays.iter().any(|(known, _)| known == array)
    }

    /// Adds those of the array that `name` is of.
    fn add(&mut self, path: &Path, file: &mut dyn ArrayFile, name: &str) -> Result<()> {
        let Some(array) = array_of(name, file) else {
            let (what, _) = file.missing(name);
            let list: Vec<String> = file.names().iter().map(|name| shorten(name)).collect();
            let mend = match list.is_empty() {
                true => "set data.path to a file or folder with arrays".to_owned(),
                false => format!("name columns of these in data.targets and data.features: {}", list.join(", ")),
            };
            return Err(Error::data(path.display().to_string(), what, mend));
        };
        if self.knows(array) {
            return Ok(());
        }
        let place = format!("{}, array {array}", path.display());
        let (rows, columns) = cells(path, file, array, &place)?;
        if let Some((first, _)) = self.arrays.first()
            && rows != self.table.rows
        {
            let what = format!("{rows} rows where {first} has {}", self.table.rows);
            return Err(Error::data(place, what, "name arrays of one length"));
        }
        let names = columns.iter().map(|column| column.name.clone()).collect();
        self.arrays.push((array.to_owned(), names));
        self.table.columns.extend(columns);
        self.table.rows = rows;
        Ok(())
    }

    /// Adds them if the array is there and as long as the first.
    fn add_if_as_long(&mut self, path: &Path, file: &mut dyn ArrayFile, name: &str) -> Result<()> {
        match array_of(name, file) {
            Some(array) if !self.knows(array) && file.length(array) == Some(self.table.rows) => {
                self.add(path, file, name)
            }
            _ => Ok(()),
        }
    }

    /// Names of arrays as those of their columns; others as they are.
    fn expand(&self, names: &[String]) -> Vec<String> {
        let of = |name: &String| match self.arrays.iter().find(|(array, _)| array == name) {
            Some((_, columns)) => columns.clone(),
            None => vec![name.clone()],
        };
        names.iter().flat_map(of).collect()
    }
}

/// The number of rows of an array, and its columns.
fn cells(path: &Path, file: &mut dyn ArrayFile, array: &str, place: &str) -> Result<(usize, Vec<Column>)> {
    if let Some(texts) = file.texts(array)? {
        let mut column = Texts::default();
        texts.iter().try_for_each(|text| column.push(Some(text.as_str()).filter(|text| !text.is_empty()), path))?;
        return Ok((texts.len(), vec![Column { name: array.to_owned(), cells: Cells::Texts(column) }]));
    }
    let Array { shape, values } = file.read(array)?;
    let [rows, dims @ ..] = &shape[..] else {
        return Err(Error::data(place, "one number alone", "give (T) or (T, columns)"));
    };
    let width: usize = dims.iter().product();
    if width == 0 {
        return Err(Error::data(place, format!("the shape {shape:?} has no columns"), "give (T) or (T, columns)"));
    }
    memory::ask(8.0 * values.len() as f64).map_err(|e| file::no_room(place, &e))?;
    let column = |c: usize| -> Vec<f64> {
        match &values {
            Values::U8(values) => values.iter().skip(c).step_by(width).map(|&v| f64::from(v)).collect(),
            Values::F32(values) => values.iter().skip(c).step_by(width).map(|&v| f64::from(v)).collect(),
            Values::F64(values) => values.iter().skip(c).step_by(width).copied().collect(),
            Values::I64(values) => values.iter().skip(c).step_by(width).map(|&v| v as f64).collect(),
        }
    };
    let name = |c: usize| match dims {
        [] => array.to_owned(),
        _ => {
            let (mut rest, mut index) = (c, vec![0; dims.len()]);
            for (index, dim) in index.iter_mut().zip(dims).rev() {
                (*index, rest) = (rest % dim, rest / dim);
            }
            let index: Vec<String> = index.iter().map(usize::to_string).collect();
            format!("{array}[{}]", index.join(","))
        }
    };
    Ok((*rows, (0..width).map(|c| Column { name: name(c), cells: Cells::Numbers(column(c)) }).collect()))
}

/// A table that is in memory already.
struct Whole(Option<Table>);

impl Tables for Whole {
    fn next(&mut self, _: usize) -> Result<Option<Table>> {
        Ok(self.0.take())
    }
}
