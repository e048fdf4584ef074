//! `csv`: any table with a header: one column to predict from others.

use super::Source;
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::data::dataset::Numbers;
use crate::data::format::csv::Rows;
use crate::data::format::file;
use crate::data::sample::float::Floats;
use crate::data::transform::label::{Classes, Labels, MOST_CLASSES};
use crate::data::transform::normalize::{Scaling, Summary};
use crate::data::transform::split::{Selection, learnt};
use crate::data::{Dataset, Input};
use crate::error::{Error, Result};
use crate::resource::memory;
use crate::rng::{Purpose, Stream, permute};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

pub(super) const SOURCE: Source = Source {
    name: "csv",
    doc: "a table with a header: one column to predict from the others; plain or .gz",
    keys: &[
        ("target", "the column to predict"),
        ("features", "the columns to predict from ([]: all others)"),
        ("task", "\"values\" or \"classes\" (\"values\")"),
        ("test_path", "a second file to test on (none: some of the rows)"),
        ("test_fraction", "without test_path, the share of rows to test on (0.2)"),
        (
            "split",
            "which rows to test on: \"last\", \"shuffled\" (by the job's seed) or \"stratified\" (so, of each class) (\"last\")",
        ),
        Classes::KEY,
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

/// Which rows are for testing.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Split {
    /// The last.
    Last,
    /// Any.
    Shuffled,
    /// The same share of each class.
    Stratified,
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
    split: Split,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<Classes>,
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
            split: Split::Last,
            classes: None,
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
        let of_values =
            |key, what: &str| Err(config.source.error(key, what, "set data.task to \"classes\" or leave it out"));
        match (keys.task, &keys.classes, keys.split) {
            (Kind::Values, Some(_), _) => return of_values("classes", "classes, where the task is values"),
            (Kind::Values, _, Split::Stratified) => return of_values("split", "by classes, where the task is values"),
            _ => {}
        }
        if keys.test_path.is_some() && keys.split != Split::Last {
            let mend = "leave out data.split or data.test_path";
            return Err(config.source.error("split", "nothing is split where test_path is given", mend));
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

/// The classes met so far, or those that the job names.
struct Known {
    names: Vec<String>,
    index: HashMap<String, u32>,
    /// Whether others may come.
    open: bool,
}

impl Known {
    fn new(names: Vec<String>, open: bool) -> Self {
        let index = names.iter().cloned().zip(0..).collect();
        Self { names, index, open }
    }

    /// The class of this name; a new one, if that may be and there are not too many.
    fn class(&mut self, text: &str) -> Option<u32> {
        let known = self.index.get(text).copied();
        if known.is_some() || !self.open || self.names.len() == MOST_CLASSES {
            return known;
        }
        self.index.insert(text.to_owned(), self.names.len() as u32);
        self.names.push(text.to_owned());
        Some(self.names.len() as u32 - 1)
    }

    /// The names in order, by number if all are integers, else by letter; classes are renumbered so.
    fn sorted(mut self, of: [&mut Vec<u32>; 2]) -> Vec<String> {
        if !self.open {
            return self.names;
        }
        self.names.sort();
        if self.names.iter().all(|name| name.parse::<i64>().is_ok()) {
            self.names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
        }
        let mut place = vec![0; self.names.len()];
        self.names.iter().zip(0..).for_each(|(name, to)| place[self.index[name] as usize] = to);
        of.into_iter().flatten().for_each(|class| *class = place[*class as usize]);
        self.names
    }
}

/// The rows of a file: features (N, F), and the target of each as class or number.
#[derive(Default)]
struct Read {
    names: Vec<String>,
    features: Vec<f32>,
    classes: Vec<u32>,
    values: Vec<f64>,
    /// The row of each sample.
    numbers: Vec<u32>,
    /// Rows in the file, with holes or without.
    rows: usize,
    /// Empty fields of each feature, and of the target.
    missing: Vec<u64>,
}

impl Read {
    fn holes(&self) -> usize {
        self.rows - self.numbers.len()
    }

    /// Takes out the samples to test on, and leaves the others; both stay in order.
    fn take_out(&mut self, test: &[bool]) -> io::Result<Read> {
        let f = self.names.len();
        Ok(Read {
            features: take_out(&mut self.features, f, test)?,
            classes: take_out(&mut self.classes, 1, test)?,
            values: take_out(&mut self.values, 1, test)?,
            numbers: take_out(&mut self.numbers, 1, test)?,
            ..Read::default()
        })
    }
}

fn take_out<T: Copy>(values: &mut Vec<T>, width: usize, test: &[bool]) -> io::Result<Vec<T>> {
    let mut out = Vec::new();
    if values.is_empty() {
        return Ok(out);
    }
    memory::reserve(&mut out, width * test.iter().filter(|&&test| test).count())?;
    let mut kept = 0;
    for (row, &test) in test.iter().enumerate() {
        let range = row * width..(row + 1) * width;
        if test {
            out.extend_from_slice(&values[range]);
        } else {
            if kept < range.start {
                values.copy_within(range, kept);
            }
            kept += width;
        }
    }
    values.truncate(kept);
    Ok(out)
}

/// Reads a file. `features` empty takes every column but the target. To `train`, each row must have a target; otherwise it may
/// be unknown, and a class that is none of the job's is.
fn read(path: &Path, keys: &Keys, delimiter: u8, features: &[String], known: &mut Known, train: bool) -> Result<Read> {
    let mut rows = Rows::open(path, delimiter)?;
    let target = if train { Some(rows.require(&keys.target)?) } else { rows.column(&keys.target) };
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
    let mut read = Read { names, missing: vec![0; columns.len() + 1], ..Read::default() };
    while rows.next()? {
        let (start, number) = (read.features.len(), read.rows as u32);
        read.rows += 1;
        memory::reserve(&mut read.features, columns.len()).map_err(|e| file::read_error(path, &e))?;
        let mut whole = true;
        for (&column, missing) in columns.iter().zip(&mut read.missing) {
            match rows.number(column)? {
                Some(value) => read.features.push(value as f32),
                None => {
                    *missing += 1;
                    whole = false;
                }
            }
        }
        if let Some(column) = target.filter(|_| train)
            && rows.text(column)?.is_empty()
        {
            read.missing[columns.len()] += 1;
            whole = false;
        }
        if !whole {
            read.features.truncate(start);
            continue;
        }
        if let Some(column) = target {
            let text = rows.text(column)?;
            match keys.task {
                Kind::Values => file::push(&mut read.values, rows.number(column)?.unwrap_or(f64::NAN), path)?,
                Kind::Classes => match known.class(text) {
                    Some(class) => file::push(&mut read.classes, class, path)?,
                    None if train => {
                        let what = format!("\"{text}\" is none of the {} classes", known.names.len());
                        return Err(rows.error(column, what, "correct it, or name all classes in data.classes"));
                    }
                    None => {}
                },
            }
        }
        file::push(&mut read.numbers, number, path)?;
    }
    if u32::try_from(read.rows).is_err() {
        return Err(Error::data(path.display().to_string(), "more than 2^32 rows", "give less data"));
    }
    Ok(read)
}

/// Which of the samples are for testing.
fn test_rows(keys: &Keys, seed: u64, read: &Read) -> Vec<bool> {
    let count = read.numbers.len();
    let share = |of: usize| (keys.test_fraction * of as f64).round() as usize;
    let mut test = vec![false; count];
    let mut any = |mut rows: Vec<u32>, class: u64| {
        let taken = share(rows.len());
        permute(&mut Stream::new(seed, Purpose::Split, class, 0), &mut rows);
        rows[..taken].iter().for_each(|&row| test[row as usize] = true);
    };
    match keys.split {
        Split::Last => test[count - share(count)..].fill(true),
        Split::Shuffled => any((0..count as u32).collect(), 0),
        Split::Stratified => {
            let mut rows: HashMap<u32, Vec<u32>> = HashMap::new();
            read.classes.iter().zip(0..).for_each(|(&class, row)| rows.entry(class).or_default().push(row));
            rows.into_iter().for_each(|(class, rows)| any(rows, u64::from(class)));
        }
    }
    test
}

/// A word on classes that are in one part only, as they are when the rows are sorted by class.
fn uneven(names: &[String], of: [&[u32]; 2]) -> Option<String> {
    let lacks = of.map(|classes| {
        let mut lacks = vec![true; names.len()];
        classes.iter().for_each(|&class| lacks[class as usize] = false);
        lacks
    });
    let only = |part: usize| lacks[1 - part].iter().zip(&lacks[part]).filter(|&(&other, &own)| other && !own).count();
    (only(0) + only(1) > 0 && !of[1].is_empty()).then(|| {
        format!(
            "of {} classes {} are in the training part only and {} in the test part only: if the rows are sorted by class, \
             set data.split = \"stratified\"",
            names.len(),
            only(0),
            only(1)
        )
    })
}

fn open(config: &DataConfig, seed: u64) -> Result<Dataset> {
    let keys = Keys::of(config)?;
    let delimiter = keys.delimiter(config)?;
    let path = super::path(config)?;
    let mut known = match &keys.classes {
        Some(classes) => Known::new(classes.names(config)?, false),
        None => Known::new(Vec::new(), true),
    };
    let mut train = read(path, &keys, delimiter, &keys.features, &mut known, true)?;
    let f = train.names.len();
    let mut test = match &keys.test_path {
        Some(path) => read(path, &keys, delimiter, &train.names, &mut known, true)?,
        None => Read::default(),
    };
    let holes = train.holes() + test.holes();
    if keys.test_path.is_none() {
        let rows = test_rows(&keys, seed, &train);
        test = train.take_out(&rows).map_err(|e| file::read_error(path, &e))?;
    }
    let (train_rows, test_rows) = (train.numbers.len(), test.numbers.len());
    let mut notes = vec![format!("{train_rows} training and {test_rows} test rows of {f} features")];
    if holes > 0 {
        notes.push(format!("{holes} rows with empty fields dropped"));
    }
    let normalize = super::normalization(config)?;
    let selection = Selection::drawn(config, seed, train_rows);
    let labels = match keys.task {
        Kind::Values => Labels::values(config, &normalize, 1, [train.values, test.values], &selection)?,
        Kind::Classes => {
            let names = known.sorted([&mut train.classes, &mut test.classes]);
            notes.extend(uneven(&names, [&train.classes, &test.classes]));
            Labels::Classes { names, of: [train.classes, test.classes] }
        }
    };
    let scaling =
        Scaling::new(config, &normalize, f, || Ok(Summary::of_channels(&learnt(&selection, &train.features, f), f)))?;
    let (place, input) = (path.display().to_string(), Shape::Vector { n: f });
    let inputs = Floats::new(&place, [train.features, test.features], input, &scaling);
    let mut dataset = Dataset::new(config, input, Box::new(inputs), labels, scaling, notes)?;
    let names = train.names.iter().chain([&keys.target]);
    let missing = names
        .zip(&train.missing)
        .enumerate()
        .map(|(i, (name, &rows))| (name.clone(), rows + test.missing.get(i).copied().unwrap_or(0)));
    dataset.missing = missing.filter(|&(_, rows)| rows > 0).collect();
    dataset.columns = [train.names, vec![keys.target]];
    Ok(dataset.keep_back(selection))
}

fn open_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Result<Dataset> {
    let keys = Keys::of(config)?;
    let delimiter = keys.delimiter(config)?;
    let mut known = Known::new(trained.classes.clone(), false);
    // The columns of the training file in its order, whatever the order here.
    let read = read(path, &keys, delimiter, &trained.features, &mut known, false)?;
    let mut notes = Vec::new();
    if read.holes() > 0 {
        let (holes, rows) = (read.holes(), read.rows);
        notes.push(format!("{holes} of {rows} rows have empty fields, and no prediction"));
    }
    let labels = match Labels::unknown(trained) {
        Labels::Values { n, units, .. } => Labels::Values { n, of: [Vec::new(), read.values], units },
        // Where a class is not known, none is.
        Labels::Classes { names, .. } => {
            let of = if read.classes.len() == read.numbers.len() { read.classes } else { Vec::new() };
            Labels::Classes { names, of: [Vec::new(), of] }
        }
        Labels::Windows(windows) => Labels::Windows(windows),
    };
    let (place, input, scaling) = (path.display().to_string(), trained.shape, Scaling::of(trained));
    let inputs = Floats::new(&place, [Vec::new(), read.features], input, &scaling);
    let inputs = Box::new(inputs);
    let mut new = Dataset::new(config, input, inputs, labels, scaling, notes)?;
    new.numbers = Some(Numbers { of: read.numbers, rows: read.rows });
    Ok(new)
}
