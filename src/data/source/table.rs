//! What columns mean, for every source of named columns: one column of arrays, or several of numbers and texts, are the
//! input; others are the targets.

use super::normalization;
use crate::config::DataConfig;
use crate::data::dataset::Numbers;
use crate::data::format::{Cells, Table, Texts, reserve};
use crate::data::sample::Samples;
use crate::data::sample::float::{Floats, channels};
use crate::data::sample::pixel::{Pixels, append_planar, summaries};
use crate::data::transform::encode::{Encoder, Missing, require};
use crate::data::transform::label::{Labels, numbered};
use crate::data::transform::normalize::{Scaling, Summary};
use crate::data::transform::split::{Selection, learnt};
use crate::data::{Dataset, Input};
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::store::table::{Array, Values};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
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
pub(super) struct Meaning<'a> {
    pub targets: Vec<String>,
    /// None: all others.
    pub features: &'a [String],
    /// None: as the columns are.
    pub task: Option<Kind>,
    pub missing: Missing,
    pub layout: Layout,
    /// The share of the last rows to test on, where no table is given for it.
    pub test_fraction: f64,
}

/// More classes than this are a mistake, such as an id taken for a class.
const MOST_CLASSES: f64 = (1 << 20) as f64;

impl Meaning<'_> {
    /// Checks the keys. Errors: no target, a share that is none.
    pub fn check(&self, config: &DataConfig) -> Result<()> {
        if self.targets.iter().all(String::is_empty) {
            let mend = "set data.target to the name of the column to predict, or data.targets to several";
            return Err(config.source.error("target", "no column to predict is named", mend));
        }
        if !(0.0..1.0).contains(&self.test_fraction) {
            let what = format!("{} is no share below 1", self.test_fraction);
            return Err(config.source.error("test_fraction", what, "use 0 to below 1, such as 0.2"));
        }
        Ok(())
    }

    /// The columns to predict from.
    fn features(&self, table: &Table) -> Vec<String> {
        if self.features.is_empty() {
            table.names().into_iter().filter(|name| !self.targets.contains(name)).collect()
        } else {
            self.features.to_vec()
        }
    }

    /// The one column of arrays, if that is the input.
    fn array<'t>(&self, table: &'t Table, path: &Path) -> Result<Option<&'t Array>> {
        let names = self.features(table);
        match &names[..] {
            [] => Err(Error::data(path.display().to_string(), "no column but the target", "give a file with features")),
            [name] => match &require(table, name, path)?.cells {
                Cells::Arrays(array) => Ok(Some(array)),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

/// The data set in a table for training and one for tests; without that, the last rows.
pub(super) fn open(
    config: &DataConfig,
    seed: u64,
    path: &Path,
    meaning: &Meaning,
    mut train: Table,
    test: Option<Table>,
) -> Result<Dataset> {
    let test = test.unwrap_or_else(|| {
        let rows = (meaning.test_fraction * train.rows as f64).round() as usize;
        train.split_off(train.rows - rows)
    });
    let normalize = normalization(config)?;
    let mut notes = Vec::new();
    if let Some(array) = meaning.array(&train, path)? {
        let shape = input_shape(&array.shape[1..], meaning.layout, path)?;
        let kept = [every(&train, path)?, every(&test, path)?];
        let selection = Selection::drawn(config, seed, train.rows);
        let labels = labels((config, &selection), meaning, Kind::Classes, [&train, &test], &kept, path)?;
        notes.push(format!("{} training and {} test samples of {shape}", train.rows, test.rows));
        let of = [take(meaning, train, path)?, take(meaning, test, path)?];
        let (inputs, scaling) = array_inputs(path, shape, meaning.layout, of, |pixels, floats| {
            Scaling::new(config, &normalize, channels(shape), || match pixels {
                Some(pixels) => Ok(summaries(&learnt(&selection, pixels, shape.len()), channels(shape))),
                None => Ok(Summary::of_channels(&learnt(&selection, floats, shape.len()), channels(shape))),
            })
        })?;
        return Ok(Dataset::new(config, shape, inputs, labels, scaling, notes)?.keep_back(selection));
    }
    let encoder = Encoder::fit(&train, &meaning.features(&train), meaning.missing, path)?;
    let f = encoder.names().len();
    let mut of = [encoder.encode(&train, path)?, encoder.encode(&test, path)?];
    for (table, rows) in [&train, &test].into_iter().zip(&mut of) {
        let known = known(meaning, table, path)?;
        let mut at = 0;
        let whole: Vec<bool> = rows.kept.iter().map(|&row| known[row as usize]).collect();
        rows.values.retain(|_| {
            at += 1;
            whole[(at - 1) / f]
        });
        rows.kept.retain(|&row| known[row as usize]);
    }
    notes.push(format!("{} training and {} test rows of {f} features", of[0].kept.len(), of[1].kept.len()));
    let dropped = train.rows + test.rows - of[0].kept.len() - of[1].kept.len();
    if dropped > 0 {
        notes.push(format!("{dropped} rows with missing values dropped"));
    }
    if of[1].unknown > 0 {
        notes.push(format!("{} texts of the test part are not in the training part", of[1].unknown));
    }
    let kept = of.each_ref().map(|rows| rows.kept.clone());
    let selection = Selection::drawn(config, seed, kept[0].len());
    let labels = labels((config, &selection), meaning, Kind::Values, [&train, &test], &kept, path)?;
    let [train, test] = of.map(|rows| rows.values);
    let scaling = Scaling::new(config, &normalize, f, || Ok(Summary::of_channels(&learnt(&selection, &train, f), f)))?;
    let shape = Shape::Vector { n: f };
    let inputs = Floats::new(&path.display().to_string(), [train, test], shape, &scaling);
    let mut dataset = Dataset::new(config, shape, Box::new(inputs), labels, scaling, notes)?;
    dataset.columns = [encoder.names(), meaning.targets.clone()];
    dataset.encoding = encoder.columns;
    Ok(dataset.keep_back(selection))
}

/// The inputs in a table; with all targets beside them, those too.
pub(super) fn open_inputs(
    trained: &Input,
    config: &DataConfig,
    path: &Path,
    meaning: &Meaning,
    table: Table,
) -> Result<Dataset> {
    let known = |kept: &[u32], table: &Table| {
        if meaning.targets.iter().any(|name| table.column(name).is_none()) {
            return Labels::unknown(trained);
        }
        part_labels(trained, meaning, table, kept, path).unwrap_or_else(|| Labels::unknown(trained))
    };
    let (shape, scaling) = (trained.shape, Scaling::of(trained));
    if trained.encoding.is_empty() {
        let Some(array) = meaning.array(&table, path)? else {
            return Err(Error::data(path.display().to_string(), "no column of arrays", "give what the job has"));
        };
        let found = input_shape(&array.shape[1..], meaning.layout, path)?;
        if found != shape {
            let what = format!("samples of {found} where the job's are {shape}");
            return Err(Error::data(path.display().to_string(), what, "give samples of that shape"));
        }
        let labels = known(&every(&table, path)?, &table);
        let of = [none_like(array), take(meaning, table, path)?];
        let (inputs, scaling) = array_inputs(path, shape, meaning.layout, of, |_, _| Ok(scaling))?;
        return Dataset::new(config, shape, inputs, labels, scaling, Vec::new());
    }
    let rows = Encoder { columns: trained.encoding.clone() }.encode(&table, path)?;
    let dropped = table.rows - rows.kept.len();
    let notes = match dropped {
        0 => Vec::new(),
        _ => vec![format!("{dropped} of {} rows have missing values, and no prediction", table.rows)],
    };
    let labels = known(&rows.kept, &table);
    let inputs = Floats::new(&path.display().to_string(), [Vec::new(), rows.values], shape, &scaling);
    let mut new = Dataset::new(config, shape, Box::new(inputs), labels, scaling, notes)?;
    new.numbers = Some(Numbers { of: rows.kept, rows: table.rows });
    Ok(new)
}

/// All rows.
fn every(table: &Table, path: &Path) -> Result<Vec<u32>> {
    let mut rows = Vec::new();
    reserve(&mut rows, table.rows, path)?;
    rows.extend(0..table.rows as u32);
    Ok(rows)
}

/// The array of the inputs out of a table.
fn take(meaning: &Meaning, table: Table, path: &Path) -> Result<Array> {
    let names = meaning.features(&table);
    let column = table.columns.into_iter().find(|column| names.contains(&column.name));
    match column.map(|column| column.cells) {
        Some(Cells::Arrays(array)) => Ok(array),
        _ => Err(Error::data(path.display().to_string(), "another type of column in the test part", "give both alike")),
    }
}

fn none_like(array: &Array) -> Array {
    let values = match array.values {
        Values::U8(_) => Values::U8(Vec::new()),
        Values::F32(_) => Values::F32(Vec::new()),
        Values::F64(_) => Values::F64(Vec::new()),
        Values::I64(_) => Values::I64(Vec::new()),
    };
    let mut shape = array.shape.clone();
    shape[0] = 0;
    Array { shape, values }
}

/// Three dimensions are an image, two a sequence (T, F), one a row.
fn input_shape(dims: &[usize], layout: Layout, path: &Path) -> Result<Shape> {
    Ok(match (dims, layout) {
        (&[c, h, w], Layout::First) | (&[h, w, c], Layout::Last) => Shape::Image { c, h, w },
        (&[t, f], _) => Shape::Sequence { t, f },
        (&[n], _) => Shape::Vector { n },
        _ => {
            let what = format!("arrays of {} dimensions", dims.len());
            return Err(Error::data(path.display().to_string(), what, "give images, sequences or rows"));
        }
    })
}

/// Arrays of both parts as inputs, scaled as `scaling` says of the training part's pixels or floats.
pub(super) fn array_inputs(
    path: &Path,
    shape: Shape,
    layout: Layout,
    of: [Array; 2],
    scaling: impl FnOnce(Option<&[u8]>, &[f32]) -> Result<Scaling>,
) -> Result<(Box<dyn Samples>, Scaling)> {
    if of.iter().any(|array| array.shape[0] > 0 && array.shape[1..].iter().product::<usize>() != shape.len()) {
        return Err(Error::data(path.display().to_string(), "both parts differ in shape", "give samples of one shape"));
    }
    if let Shape::Image { c, h, w } = shape
        && of.iter().all(|array| matches!(array.values, Values::U8(_)))
    {
        let [train, test] = of.map(|array| if let Values::U8(values) = array.values { values } else { Vec::new() });
        let of = [last(train, shape, layout, path)?, last(test, shape, layout, path)?];
        let scaling = scaling(Some(&of[0]), &[])?;
        return Ok((Box::new(Pixels::new(of, (h, w, c), &scaling)), scaling));
    }
    let [train, test] = of.map(|array| match array.values {
        Values::U8(values) => values.into_iter().map(|v| f32::from(v) / 255.0).collect(),
        Values::F32(values) => values,
        Values::F64(values) => values.into_iter().map(|v| v as f32).collect(),
        Values::I64(values) => values.into_iter().map(|v| v as f32).collect(),
    });
    let of = [last(train, shape, layout, path)?, last(test, shape, layout, path)?];
    let scaling = scaling(None, &of[0])?;
    Ok((Box::new(Floats::new(&path.display().to_string(), of, shape, &scaling)), scaling))
}

/// Images with their channels last; anything else is in order.
fn last<S: Copy + Default>(values: Vec<S>, shape: Shape, layout: Layout, path: &Path) -> Result<Vec<S>> {
    match shape {
        Shape::Image { c, .. } if c > 1 && layout == Layout::First => {
            let mut pixels = Vec::new();
            reserve(&mut pixels, values.len(), path)?;
            values.chunks_exact(shape.len()).for_each(|image| append_planar(image, c, &mut pixels));
            Ok(pixels)
        }
        _ => Ok(values),
    }
}

/// Of each row whether it has all targets.
fn known(meaning: &Meaning, table: &Table, path: &Path) -> Result<Vec<bool>> {
    let mut known = vec![true; table.rows];
    for name in &meaning.targets {
        let there: &dyn Fn(usize) -> bool = match &require(table, name, path)?.cells {
            Cells::Numbers(values) => &|row| !values[row].is_nan(),
            Cells::Texts(texts) => &|row| texts.of[row] != Texts::MISSING,
            Cells::Arrays(_) => &|_| true,
        };
        known.iter_mut().enumerate().for_each(|(row, known)| *known &= there(row));
    }
    Ok(known)
}

/// The targets of the kept rows of both parts.
fn labels(
    (config, selection): (&DataConfig, &Option<Selection>),
    meaning: &Meaning,
    default: Kind,
    tables: [&Table; 2],
    kept: &[Vec<u32>; 2],
    path: &Path,
) -> Result<Labels> {
    let first = &require(tables[0], &meaning.targets[0], path)?.cells;
    let task = meaning.task.unwrap_or(if matches!(first, Cells::Texts(_)) { Kind::Classes } else { default });
    if task == Kind::Values {
        let of = [values(meaning, tables[0], &kept[0], path)?, values(meaning, tables[1], &kept[1], path)?];
        return Labels::values(config, &normalization(config)?, meaning.targets.len(), of, selection);
    }
    if meaning.targets.len() > 1 {
        return Err(config.source.error("targets", "several targets of classes", "name one, or set task = \"values\""));
    }
    let of = [texts(meaning, tables[0], &kept[0], path)?, texts(meaning, tables[1], &kept[1], path)?];
    let names = match &of {
        [Classes::Numbers(train), Classes::Numbers(test)] => {
            let most = train.iter().chain(test).max().map_or(0, |&most| most as usize + 1);
            numbered(most)
        }
        [Classes::Texts(train), Classes::Texts(test)] => {
            let distinct: BTreeSet<&str> = train.iter().chain(test).copied().collect();
            distinct.into_iter().map(str::to_owned).collect()
        }
        _ => {
            let place = format!("{}, column {}", path.display(), meaning.targets[0]);
            return Err(Error::data(place, "texts in one part and numbers in the other", "give both alike"));
        }
    };
    let of = of.map(|classes| classes.indices(&names).unwrap_or_default());
    Ok(Labels::Classes { names, of })
}

/// The targets of a file of inputs as the network knows them; None if it does not.
fn part_labels(trained: &Input, meaning: &Meaning, table: &Table, kept: &[u32], path: &Path) -> Option<Labels> {
    match Labels::unknown(trained) {
        Labels::Classes { names, .. } => {
            let classes = texts(meaning, table, kept, path).ok()?.indices(&names)?;
            Some(Labels::Classes { names, of: [Vec::new(), classes] })
        }
        Labels::Values { n, units, .. } => {
            let values = values(meaning, table, kept, path).ok()?;
            Some(Labels::Values { n, of: [Vec::new(), values], units })
        }
        Labels::Windows(_) => None,
    }
}

/// (kept, targets).
fn values(meaning: &Meaning, table: &Table, kept: &[u32], path: &Path) -> Result<Vec<f64>> {
    let mut columns = Vec::new();
    for name in &meaning.targets {
        let place = || format!("{}, column {name}", path.display());
        let Cells::Numbers(values) = &require(table, name, path)?.cells else {
            return Err(Error::data(place(), "a target that is no number", "set data.task = \"classes\""));
        };
        if let Some(&row) = kept.iter().find(|&&row| !(values[row as usize] as f32).is_finite()) {
            return Err(Error::data(format!("{}, row {row}", place()), "no finite number", "replace or drop it"));
        }
        columns.push(values);
    }
    let mut targets = Vec::new();
    reserve(&mut targets, kept.len() * columns.len(), path)?;
    targets.extend(kept.iter().flat_map(|&row| columns.iter().map(move |values| values[row as usize])));
    Ok(targets)
}

/// Classes of rows, by number or by text.
enum Classes<'a> {
    Numbers(Vec<u32>),
    Texts(Vec<&'a str>),
}

impl Classes<'_> {
    /// Of each row the index of its class, if all are among `names`.
    fn indices(self, names: &[String]) -> Option<Vec<u32>> {
        match self {
            Classes::Numbers(of) if of.iter().all(|&class| (class as usize) < names.len()) => Some(of),
            Classes::Numbers(_) => None,
            Classes::Texts(texts) => {
                let index: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
                texts.iter().map(|text| index.get(text).copied()).collect()
            }
        }
    }
}

fn texts<'a>(meaning: &Meaning, table: &'a Table, kept: &[u32], path: &Path) -> Result<Classes<'a>> {
    let name = &meaning.targets[0];
    let error = |row: u32, what: String| {
        let place = format!("{}, column {name}, row {row}", path.display());
        Err(Error::data(place, what, "give each sample a class: a whole number from 0 on, or a text"))
    };
    match &require(table, name, path)?.cells {
        Cells::Numbers(values) => {
            let mut classes = Vec::new();
            reserve(&mut classes, kept.len(), path)?;
            for &row in kept {
                let value = values[row as usize];
                if value.fract() != 0.0 || !(0.0..MOST_CLASSES).contains(&value) {
                    return error(row, format!("class {value}"));
                }
                classes.push(value as u32);
            }
            Ok(Classes::Numbers(classes))
        }
        Cells::Texts(texts) => {
            let mut classes = Vec::new();
            reserve(&mut classes, kept.len(), path)?;
            for &row in kept {
                match texts.get(row as usize) {
                    Some(text) => classes.push(text),
                    None => return error(row, "no class".into()),
                }
            }
            Ok(Classes::Texts(classes))
        }
        Cells::Arrays(_) => error(0, "an array".into()),
    }
}
