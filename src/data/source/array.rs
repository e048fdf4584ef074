//! What arrays mean, for every format that holds some (NPZ, NPY, HDF5): the rank of the inputs gives the kind of sample, the
//! type of the targets the task.

use super::array_series;
use crate::config::{DataConfig, Normalize};
use crate::data::Dataset;
use crate::data::format::{RowStream, file};
use crate::data::sample::Samples;
use crate::data::sample::float::{self, Floats, channels};
use crate::data::sample::kept::Unread;
use crate::data::sample::pixel::{self, Images, Pixels, append_planar, interleave, summaries};
use crate::data::transform::encode::Missing;
use crate::data::transform::label::{Classes, Labels, MOST_CLASSES, seen};
use crate::data::transform::normalize::{Scaling, Summary};
use crate::data::transform::split::{Selection, learnt};
use crate::error::{Error, Result, shorten};
use crate::resource::memory;
use crate::shape::Shape;
use crate::store::rows::{Kind, Rows};
use crate::store::table::{Array, Values};
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The keys of a source of arrays; those from `window` on are of windows over them ([`super::array_series`]).
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Keys {
    pub arrays: Names,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Classes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub horizon: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_fraction: Option<f64>,
}

/// What the arrays are called.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Names {
    pub x_train: String,
    pub y_train: String,
    pub x_test: String,
    pub y_test: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { x_train: "x_train".into(), y_train: "y_train".into(), x_test: "x_test".into(), y_test: "y_test".into() }
    }
}

/// For the documentation.
pub(super) const KEYS: &[(&str, &str)] = &[
    (
        "arrays",
        "names of the arrays, also paths of .npy files in the folder or in HDF5 groups ({ x_train = \"x_train\", y_train = \
         \"y_train\", x_test = \"x_test\", y_test = \"y_test\" })",
    ),
    Classes::KEY,
    (
        "window",
        "rows that the network sees: samples are windows over arrays (T) or (T, ...), whose columns are called by the array, \
         \"data\" for all of one, \"data[0]\" (none: samples are the rows of x_train)",
    ),
    ("horizon", "of windows, how many rows ahead the target is (1: the next)"),
    ("targets", "of windows, the columns to predict"),
    ("features", "of windows, the columns to predict from ([]: all numbers in arrays as long as the target)"),
    ("group", "of windows, the column that tells series apart (none: there is one series)"),
    ("time", "of windows, the column of dates, times or numbers to sort by (none: the file's order)"),
    ("missing", "of windows, \"drop\" rows that lack a value (NaN), or the number to take (\"drop\")"),
    ("test_fraction", "of windows, the last share of each series, to test on (0.2)"),
];

/// A file of named arrays, or several.
pub(super) trait ArrayFile {
    /// The names of all arrays.
    fn names(&self) -> &[String];
    /// Whether there is one of this name.
    fn has(&self, name: &str) -> bool {
        self.names().iter().any(|known| known == name)
    }
    /// What is wrong where there is none of this name, and the mend.
    fn missing(&self, name: &str) -> (String, String);
    /// The names of the classes, where the file says them.
    fn classes(&self) -> &[String] {
        &[]
    }
    /// One of which rows can be read as they are needed, where the format allows it.
    fn rows(&mut self, name: &str) -> Result<Option<Rows>> {
        let _ = name;
        Ok(None)
    }
    /// Reads one.
    fn read(&mut self, name: &str) -> Result<Array>;
    /// How many rows one has that holds numbers or texts, and can be read.
    fn length(&mut self, name: &str) -> Option<usize>;
    /// Reads one of one dimension that holds texts or times.
    fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>>;
    /// One that is read piece by piece.
    fn stream(&mut self, name: &str) -> Result<Box<dyn RowStream>>;
    /// One with inputs.
    fn inputs(&mut self, name: &str) -> Result<Inputs> {
        Ok(match self.rows(name)? {
            Some(rows) => Inputs::Unread(rows),
            None => Inputs::Read(self.read(name)?),
        })
    }
}

/// An array of inputs.
pub(super) enum Inputs {
    /// In memory.
    Read(Array),
    /// Still in its file.
    Unread(Rows),
}

impl Inputs {
    fn shape(&self) -> &[usize] {
        match self {
            Inputs::Read(array) => &array.shape,
            Inputs::Unread(rows) => &rows.shape,
        }
    }

    fn is_u8(&self) -> bool {
        match self {
            Inputs::Read(array) => matches!(array.values, Values::U8(_)),
            Inputs::Unread(rows) => rows.kind == Kind::U8,
        }
    }
}

/// What is wrong, and the mend, where nothing more is known.
pub(super) fn no_such(name: &str, names: &[String]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| shorten(name)).collect();
    (format!("no array \"{name}\""), format!("name it in data.arrays; there are: {}", names.join(", ")))
}

/// The data set in a file of arrays.
pub(super) fn open(config: &DataConfig, seed: u64, path: &Path, file: &mut dyn ArrayFile) -> Result<Dataset> {
    let keys: Keys = config.source.parse()?;
    if keys.window.is_some() {
        return array_series::open(config, seed, path, &keys, file);
    }
    if let Some(key) = keys.of_windows_alone() {
        return Err(config.source.error(key, "is of windows, and there is no window", "set data.window"));
    }
    let Keys { arrays, classes, .. } = keys;
    let classes = classes.map(|classes| classes.names(config)).transpose()?;
    let normalize = super::normalization(config)?;
    let place = |name: &str| format!("{}, array {name}", path.display());
    for name in [&arrays.x_train, &arrays.y_train] {
        if !file.has(name) {
            let (what, mend) = file.missing(name);
            return Err(Error::data(path.display().to_string(), what, mend));
        }
    }
    let mut notes = Vec::new();
    let test = match (file.has(&arrays.x_test), file.has(&arrays.y_test)) {
        (true, true) => Some((file.inputs(&arrays.x_test)?, file.read(&arrays.y_test)?)),
        (false, false) => {
            let default = Names::default();
            if arrays.x_test != default.x_test || arrays.y_test != default.y_test {
                let (what, mend) = file.missing(&arrays.x_test);
                return Err(Error::data(path.display().to_string(), what, mend));
            }
            None
        }
        (x, _) => {
            let missing = if x { &arrays.y_test } else { &arrays.x_test };
            let what = format!("{} beside the other of the test part", file.missing(missing).0);
            return Err(Error::data(path.display().to_string(), what, "give both or none"));
        }
    };
    let (x_train, y_train) = (file.inputs(&arrays.x_train)?, file.read(&arrays.y_train)?);
    let input = input_shape(x_train.shape(), &place(&arrays.x_train))?;
    let counts = (x_train.shape()[0], test.as_ref().map_or(0, |(x, _)| x.shape().first().copied().unwrap_or(0)));
    notes.insert(0, format!("{} training and {} test samples of {input}", counts.0, counts.1));
    let train_targets = targets(y_train, counts.0, &place(&arrays.y_train))?;
    let named = |file: &dyn ArrayFile| Some(file.classes().to_vec()).filter(|names| !names.is_empty());
    let classes = match train_targets {
        (_, Target::Classes(_)) => classes.or_else(|| named(file)),
        _ => classes,
    };
    let (x_test, test_targets) = match test {
        Some((x, y)) => {
            let shape = input_shape(x.shape(), &place(&arrays.x_test))?;
            if shape != input {
                let what = format!("samples of {shape} where {} has {input}", arrays.x_train);
                return Err(Error::data(place(&arrays.x_test), what, "give both parts the same shape"));
            }
            (Some(x), Some(targets(y, counts.1, &place(&arrays.y_test))?))
        }
        None => (None, None),
    };
    let selection = Selection::drawn(config, seed, counts.0);
    let labels = labels(
        (config, &selection),
        &normalize,
        classes,
        [place(&arrays.y_train), place(&arrays.y_test)],
        train_targets,
        test_targets,
    )?;
    let width = input.len();
    let (inputs, scaling) = inputs(&place(&arrays.x_train), input, [Some(x_train), x_test], |train| {
        Scaling::new(config, &normalize, channels(input), || match train {
            Train::Pixels(Images::Kept(pixels)) => Ok(summaries(&learnt(&selection, pixels, width), channels(input))),
            Train::Pixels(Images::Unread(unread)) => {
                known(unread, &selection, channels(input), pixel::unread_summaries)
            }
            Train::Floats(floats) => Ok(Summary::of_channels(&learnt(&selection, floats, width), channels(input))),
            Train::Unread(unread) => known(unread, &selection, channels(input), float::unread_summaries),
        })
    })?;
    Ok(Dataset::new(config, input, inputs, labels, scaling, notes)?.keep_back(selection))
}

/// (N, C, H, W) are images, (N, T, F) sequences, (N, F) rows.
pub(super) fn input_shape(of: &[usize], place: &str) -> Result<Shape> {
    let shape = match *of {
        [_, c, h, w] => Shape::Image { c, h, w },
        [_, t, f] => Shape::Sequence { t, f },
        [_, n] => Shape::Vector { n },
        _ => {
            let what = format!("{} dimensions", of.len());
            let mend = "give images (N, C, H, W), sequences (N, time, features) or rows (N, features)";
            return Err(Error::data(place, what, mend));
        }
    };
    let elements = of[1..].iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    if shape.is_empty() || elements.is_none() {
        return Err(Error::data(place, format!("the shape {of:?} has no elements"), "give samples"));
    }
    Ok(shape)
}

/// The training part before it is scaled.
pub(super) enum Train<'a> {
    Pixels(&'a Images),
    Floats(&'a [f32]),
    Unread(&'a Unread),
}

/// The summary of what is learnt from: as `ddl prepare` left it, if that is all of the file, or else `found` by reading it.
fn known(
    unread: &Unread,
    selection: &Option<Selection>,
    channels: usize,
    found: impl FnOnce(&Unread, &Option<Selection>, usize) -> Result<Vec<Summary>>,
) -> Result<Vec<Summary>> {
    let left = unread.statistics.as_deref().filter(|_| selection.is_none());
    match left.and_then(|text| Summary::from_text(text, channels)) {
        Some(summaries) => Ok(summaries),
        None => found(unread, selection, channels),
    }
}

/// Inputs of the training and the test part in memory order, scaled as `scaling` says of the training part.
pub(super) fn inputs(
    place: &str,
    shape: Shape,
    arrays: [Option<Inputs>; 2],
    scaling: impl FnOnce(Train) -> Result<Scaling>,
) -> Result<(Box<dyn Samples>, Scaling)> {
    let room = |e: io::Error| file::no_room(place, &e);
    if let Shape::Image { c, h, w } = shape
        && arrays.iter().flatten().all(Inputs::is_u8)
    {
        let mut of = [Images::from(Vec::new()), Images::from(Vec::new())];
        for (of, array) in of.iter_mut().zip(arrays) {
            match array {
                Some(Inputs::Read(Array { values: Values::U8(planes), .. })) => {
                    *of = interleaved(planes, shape).map_err(room)?.into();
                }
                Some(Inputs::Unread(rows)) => *of = unread_pixels(rows, shape).into(),
                _ => {}
            }
        }
        let scaling = scaling(Train::Pixels(&of[0]))?;
        return Ok((Box::new(Pixels::new(of, (h, w, c), &scaling)), scaling));
    }
    let mut of: [Vec<f32>; 2] = Default::default();
    let mut unread = [None, None];
    for (i, array) in arrays.into_iter().enumerate() {
        match array {
            Some(Inputs::Read(array)) => {
                of[i] = floats(array.values).and_then(|values| interleaved(values, shape)).map_err(room)?;
            }
            Some(Inputs::Unread(rows)) => unread[i] = Some(unread_floats(rows, shape)),
            None => {}
        }
    }
    let scaling = match &unread[0] {
        Some(unread) => scaling(Train::Unread(unread))?,
        None => scaling(Train::Floats(&of[0]))?,
    };
    let samples = Floats::new(place, of, shape, &scaling).with_unread(unread, shape, &scaling);
    Ok((Box::new(samples), scaling))
}

/// Images that stay in their file, (H, W, C) as they are read.
fn unread_pixels(rows: Rows, shape: Shape) -> Unread {
    unread(rows, 1, shape, move |rows, wanted, to| {
        let Some(channels) = planes(shape) else { return rows.bytes(wanted, to) };
        let mut found = vec![0; to.len()];
        rows.bytes(wanted, &mut found)?;
        let images = found.chunks_exact(shape.len()).zip(to.chunks_exact_mut(shape.len()));
        images.for_each(|(planes, image)| interleave(planes, channels, image));
        Ok(())
    })
}

/// Values that stay in their file, in memory order as they are read.
fn unread_floats(rows: Rows, shape: Shape) -> Unread {
    unread(rows, 4, shape, move |rows, wanted, to| {
        let to: &mut [f32] = bytemuck::cast_slice_mut(to);
        let Some(channels) = planes(shape) else { return rows.floats(wanted, to) };
        let mut found = vec![0.0; to.len()];
        rows.floats(wanted, &mut found)?;
        let images = found.chunks_exact(shape.len()).zip(to.chunks_exact_mut(shape.len()));
        images.for_each(|(planes, image)| interleave(planes, channels, image));
        Ok(())
    })
}

/// The number of planes of images that have several.
fn planes(shape: Shape) -> Option<usize> {
    match shape {
        Shape::Image { c, .. } if c > 1 => Some(c),
        _ => None,
    }
}

/// Samples of elements of `size` bytes that `read` gives.
fn unread(
    rows: Rows,
    size: usize,
    shape: Shape,
    read: impl Fn(&Rows, Range<usize>, &mut [u8]) -> Result<()> + Send + Sync + 'static,
) -> Unread {
    let rows = Arc::new(rows);
    let (reader, announced) = (rows.clone(), rows.clone());
    // However many are asked for, few are held twice.
    let some = ((1 << 20) / (size * shape.len())).max(1);
    let bytes_of_one = size * shape.len();
    let read = move |wanted: Range<usize>, to: &mut [u8]| {
        for (first, to) in wanted.clone().step_by(some).zip(to.chunks_mut(some * bytes_of_one)) {
            read(&reader, first..wanted.end.min(first + some), to)?;
        }
        Ok(())
    };
    Unread {
        chunk: rows.chunk,
        packed: rows.packed.is_some(),
        statistics: rows.statistics.clone(),
        announce: Box::new(move |wanted| announced.announce(wanted)),
        ..Unread::new(rows.shape[0], bytes_of_one, Box::new(read))
    }
}

/// u8 spans 0 to 1, whatever it stands for; anything else is as it is.
fn floats(values: Values) -> io::Result<Vec<f32>> {
    match values {
        Values::U8(values) => memory::converted(values, |v| f32::from(v) / 255.0),
        Values::F32(values) => Ok(values),
        // Narrower ones take the place of the wider.
        Values::F64(values) => Ok(values.into_iter().map(|v| v as f32).collect()),
        Values::I64(values) => Ok(values.into_iter().map(|v| v as f32).collect()),
    }
}

/// Images from (N, C, H, W) to (N, H, W, C); anything else is in order.
fn interleaved<S: Copy + Default>(values: Vec<S>, shape: Shape) -> io::Result<Vec<S>> {
    match shape {
        Shape::Image { c, .. } if c > 1 => {
            let mut pixels = Vec::new();
            memory::reserve(&mut pixels, values.len())?;
            for image in values.chunks_exact(shape.len()) {
                append_planar(image, c, &mut pixels);
            }
            Ok(pixels)
        }
        _ => Ok(values),
    }
}

/// One part's targets.
pub(super) enum Target {
    Classes(Vec<u32>),
    Values(Vec<f64>),
}

/// The targets in an array (N) or (N, n), and n: integers are classes, floats values.
pub(super) fn targets(array: Array, samples: usize, place: &str) -> Result<(usize, Target)> {
    let columns = match array.shape[..] {
        [_] => 1,
        [_, n] if n > 0 => n,
        _ => return Err(Error::data(place, format!("targets of shape {:?}", array.shape), "give (N) or (N, n)")),
    };
    if array.shape[0] != samples || array.values.len() != samples * columns {
        let what = format!("{} targets for {samples} samples", array.shape[0]);
        return Err(Error::data(place, what, "give one for each sample"));
    }
    let room = |e: io::Error| file::no_room(place, &e);
    let values = match array.values {
        Values::F32(values) => memory::converted(values, f64::from).map_err(room)?,
        Values::F64(values) => values,
        Values::U8(values) => return classes(memory::converted(values, i64::from).map_err(room)?, columns, place),
        Values::I64(values) => return classes(values, columns, place),
    };
    if let Some(i) = values.iter().position(|v| !(*v as f32).is_finite()) {
        let what = format!("the value of sample {} is not finite", i / columns);
        return Err(Error::data(place, what, "replace or drop it"));
    }
    Ok((columns, Target::Values(values)))
}

fn classes(values: Vec<i64>, columns: usize, place: &str) -> Result<(usize, Target)> {
    if columns != 1 {
        let what = format!("integers of {columns} columns");
        return Err(Error::data(place, what, "give (N) class indices, or floats to have values"));
    }
    if let Some(i) = values.iter().position(|v| !(0..MOST_CLASSES as i64).contains(v)) {
        let what = format!("class {} of sample {i}", values[i]);
        return Err(Error::data(place, what, format!("give classes from 0 to {}", MOST_CLASSES - 1)));
    }
    Ok((1, Target::Classes(values.into_iter().map(|v| v as u32).collect())))
}

/// Both parts' targets, which must be of one kind.
fn labels(
    (config, selection): (&DataConfig, &Option<Selection>),
    normalize: &Normalize,
    classes: Option<Vec<String>>,
    places: [String; 2],
    train: (usize, Target),
    test: Option<(usize, Target)>,
) -> Result<Labels> {
    let task = |n, target: &Target| match target {
        Target::Classes(_) => "classes".to_owned(),
        Target::Values(_) => format!("{n} values"),
    };
    if let Some((n, target)) = &test
        && task(*n, target) != task(train.0, &train.1)
    {
        let what = format!("{} where the training part has {}", task(*n, target), task(train.0, &train.1));
        let mend = "give both parts targets of one type (integers: classes, floats: values)";
        return Err(Error::data(&places[1], what, mend));
    }
    match (train, test.map(|(_, target)| target)) {
        ((_, Target::Classes(train)), test) => {
            let test = if let Some(Target::Classes(test)) = test { test } else { Vec::new() };
            let names = classes.map_or_else(|| seen([&train, &test], &places[0]), Ok)?;
            for (of, place) in [&train, &test].into_iter().zip(places) {
                if let Some(i) = of.iter().position(|&class| class as usize >= names.len()) {
                    let what = format!("class {} of sample {i} is none of the {} classes", of[i], names.len());
                    return Err(Error::data(place, what, "name all classes in data.classes, or correct the array"));
                }
            }
            Ok(Labels::Classes { names, of: [train, test] })
        }
        ((_, Target::Values(_)), _) if classes.is_some() => {
            let what = format!("classes, but the floats of {} are values", places[0]);
            Err(config.source.error("classes", what, "leave the key out, or write the targets as integers"))
        }
        ((n, Target::Values(train)), test) => {
            let test = if let Some(Target::Values(test)) = test { test } else { Vec::new() };
            Labels::values(config, normalize, n, [train, test], selection)
        }
    }
}
