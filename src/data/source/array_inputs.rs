//! Inputs to predict from in a file of arrays, piece by piece.

use super::array::{ArrayFile, Inputs, Keys, Names, Target, input_shape, inputs, targets};
use super::array_series;
use crate::config::DataConfig;
use crate::data::transform::label::Labels;
use crate::data::transform::normalize::Scaling;
use crate::data::{Dataset, Input};
use crate::error::{Error, Result};
use crate::store::table::Array;
use std::path::Path;

/// The inputs in a file: the array `x`, or that of the test part, or the only one; with `y` beside it, targets.
pub(super) fn open(
    trained: &Input,
    config: &DataConfig,
    path: &Path,
    file: &mut dyn ArrayFile,
) -> Result<super::Pieces> {
    let arrays = match config.source.parse::<Keys>() {
        Ok(keys) if keys.window.is_some() => return array_series::open_inputs(trained, config, path, &keys, file),
        Ok(keys) => keys.arrays,
        Err(_) => Names::default(),
    };
    let names = file.names();
    let candidates = [("x", "y"), (&arrays.x_test, &arrays.y_test), (&arrays.x_train, &arrays.y_train)];
    let (x, y) = match candidates.iter().find(|(x, _)| file.has(x)) {
        Some(&(x, y)) => (x.to_owned(), file.has(y).then(|| y.to_owned())),
        None if names.len() == 1 => (names[0].clone(), None),
        None => {
            let mend = format!("call it x; there are: {}", names.join(", "));
            return Err(Error::data(path.display().to_string(), "no array of inputs", mend));
        }
    };
    let place = |name: &str| format!("{}, array {name}", path.display());
    let (x_place, y_place) = (place(&x), y.as_deref().map(place).unwrap_or_default());
    let mut x = file.stream(&x)?;
    let shape = input_shape(x.shape(), &x_place)?;
    if shape != trained.shape {
        let what = format!("samples of {shape} where the job's are {}", trained.shape);
        return Err(Error::data(x_place, what, "give samples of that shape"));
    }
    let (count, mut at) = (x.shape()[0], 0);
    let mut y = y.map(|y| file.stream(&y)).transpose()?;
    if let Some(y) = y.as_ref().filter(|y| y.shape().first() != Some(&count)) {
        let what = format!("{} targets for {count} samples", y.shape().first().unwrap_or(&0));
        return Err(Error::data(y_place, what, "give one for each sample"));
    }
    let (trained, config) = (trained.clone(), config.clone());
    Ok(Box::new(move |rows| {
        if at > 0 && at == count {
            return Ok(None);
        }
        let array = x.next(rows)?;
        let rows = array.shape[0];
        let place = if at == 0 { y_place.clone() } else { format!("{y_place}, rows from {at} on") };
        let known = match &mut y {
            Some(y) => Some(targets(y.next(rows)?, rows, &place)?.1),
            None => None,
        };
        at += rows;
        piece(&trained, &config, &x_place, array, known).map(Some)
    }))
}

/// A piece, with its targets where they are known and of the job's kind.
fn piece(trained: &Input, config: &DataConfig, place: &str, x: Array, known: Option<Target>) -> Result<Dataset> {
    let rows = x.shape[0];
    let labels = match (Labels::unknown(trained), known) {
        (Labels::Classes { names, .. }, Some(Target::Classes(of)))
            if of.iter().all(|&class| (class as usize) < names.len()) =>
        {
            Labels::Classes { names, of: [Vec::new(), of] }
        }
        (Labels::Values { n, units, .. }, Some(Target::Values(of))) if of.len() == n * rows => {
            Labels::Values { n, of: [Vec::new(), of], units }
        }
        (labels, _) => labels,
    };
    let (inputs, scaling) = inputs(place, trained.shape, [None, Some(Inputs::Read(x))], |_| Ok(Scaling::of(trained)))?;
    Dataset::new(config, trained.shape, inputs, labels, scaling, Vec::new())
}
