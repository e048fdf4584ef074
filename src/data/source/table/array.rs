//! A column of arrays as the input: images, sequences or rows.

use super::split;
use super::target;
use super::{Kind, Layout, Meaning, channels, normalization, summaries};
use crate::config::DataConfig;
use crate::data::format::{Cells, Table, reserve};
use crate::data::sample::Samples;
use crate::data::sample::float::Floats;
use crate::data::sample::pixel::{Pixels, append_planar};
use crate::data::transform::normalize::{Scaling, Summary};
use crate::data::transform::split::{Selection, learnt};
use crate::data::{Dataset, Input};
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::store::table::{Array, Values};
use std::path::Path;

/// The data set whose inputs are the arrays of a column.
pub(super) fn open(
    config: &DataConfig,
    seed: u64,
    path: &Path,
    meaning: &Meaning,
    name: &str,
    train: Table,
    test: Option<Table>,
) -> Result<Dataset> {
    let normalize = normalization(config)?;
    let rows = match &test {
        Some(test) => [every(&train, path)?, every(test, path)?],
        None => split::parts(meaning, seed, every(&train, path)?, &train),
    };
    let selection = Selection::drawn(config, seed, rows[0].len());
    let tables = [&train, test.as_ref().unwrap_or(&train)];
    let labels = target::labels((config, &selection), meaning, Kind::Classes, tables, &rows, path)?;
    let of = match test {
        Some(test) => [take(name, train, path)?, take(name, test, path)?],
        None => parts(take(name, train, path)?, &rows, path)?,
    };
    let shape = input_shape(&of[0].shape[1..], meaning.layout, path)?;
    let mut notes = vec![format!("{} training and {} test samples of {shape}", rows[0].len(), rows[1].len())];
    notes.extend(target::uneven(&labels));
    let (inputs, scaling) = inputs(path, shape, meaning.layout, of, |pixels, floats| {
        Scaling::new(config, &normalize, channels(shape), || match pixels {
            Some(pixels) => Ok(summaries(&learnt(&selection, pixels, shape.len()), channels(shape))),
            None => Ok(Summary::of_channels(&learnt(&selection, floats, shape.len()), channels(shape))),
        })
    })?;
    Ok(Dataset::new(config, shape, inputs, labels, scaling, notes)?.keep_back(selection))
}

/// The arrays in a file of inputs.
pub(super) fn open_inputs(
    trained: &Input,
    config: &DataConfig,
    path: &Path,
    meaning: &Meaning,
    table: Table,
) -> Result<Dataset> {
    let (shape, scaling) = (trained.shape, Scaling::of(trained));
    let Some(name) = meaning.array(&table, path)? else {
        return Err(Error::data(path.display().to_string(), "no column of arrays", "give what the job has"));
    };
    let labels = target::known(trained, meaning, &table, &every(&table, path)?, path);
    let array = take(&name, table, path)?;
    let found = input_shape(&array.shape[1..], meaning.layout, path)?;
    if found != shape {
        let what = format!("samples of {found} where the job's are {shape}");
        return Err(Error::data(path.display().to_string(), what, "give samples of that shape"));
    }
    let of = [none_like(&array), array];
    let (inputs, scaling) = inputs(path, shape, meaning.layout, of, |_, _| Ok(scaling))?;
    Dataset::new(config, shape, inputs, labels, scaling, Vec::new())
}

/// All rows.
fn every(table: &Table, path: &Path) -> Result<Vec<u32>> {
    let mut rows = Vec::new();
    reserve(&mut rows, table.rows, path)?;
    rows.extend(0..table.rows as u32);
    Ok(rows)
}

/// A column of arrays out of a table.
fn take(name: &str, table: Table, path: &Path) -> Result<Array> {
    match table.columns.into_iter().find(|column| column.name == name).map(|column| column.cells) {
        Some(Cells::Arrays(array)) => Ok(array),
        _ => Err(Error::data(path.display().to_string(), "another type of column in the test part", "give both alike")),
    }
}

/// The rows of both parts.
fn parts(mut array: Array, rows: &[Vec<u32>; 2], path: &Path) -> Result<[Array; 2]> {
    let width: usize = array.shape[1..].iter().product();
    // The test part mostly is the last rows.
    if rows[0].iter().chain(&rows[1]).is_sorted() {
        let at = width * rows[0].len();
        let values = match &mut array.values {
            Values::U8(values) => Values::U8(values.split_off(at)),
            Values::F32(values) => Values::F32(values.split_off(at)),
            Values::F64(values) => Values::F64(values.split_off(at)),
            Values::I64(values) => Values::I64(values.split_off(at)),
        };
        let shape = |rows: &[u32]| [&[rows.len()], &array.shape[1..]].concat();
        let [train, test] = [shape(&rows[0]), shape(&rows[1])];
        return Ok([Array { shape: train, values: array.values }, Array { shape: test, values }]);
    }
    fn gather<T: Copy>(values: &[T], rows: &[u32], width: usize, path: &Path) -> Result<Vec<T>> {
        let mut some = Vec::new();
        reserve(&mut some, rows.len() * width, path)?;
        rows.iter().for_each(|&row| some.extend_from_slice(&values[row as usize * width..][..width]));
        Ok(some)
    }
    let part = |rows: &[u32]| -> Result<Array> {
        let values = match &array.values {
            Values::U8(values) => Values::U8(gather(values, rows, width, path)?),
            Values::F32(values) => Values::F32(gather(values, rows, width, path)?),
            Values::F64(values) => Values::F64(gather(values, rows, width, path)?),
            Values::I64(values) => Values::I64(gather(values, rows, width, path)?),
        };
        Ok(Array { shape: [&[rows.len()], &array.shape[1..]].concat(), values })
    };
    Ok([part(&rows[0])?, part(&rows[1])?])
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
fn inputs(
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
