//! Files of inputs to predict from, piece by piece in bounded memory where their format allows.

use super::{Dataset, Input, source};
use crate::config::DataConfig;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

type Next = Box<dyn FnMut(usize) -> Result<Option<Dataset>>>;

/// A file of inputs being read.
pub struct Inputs {
    file: PathBuf,
    next: Next,
    /// Rows before the next piece; None before the first.
    before: Option<usize>,
}

impl Inputs {
    /// Opens `file` in the format of the job's source (a CSV series for stocks, an NPZ file with `x`, an IDX file of images, a
    /// CIFAR-10 `.bin`, a CSV of features).
    ///
    /// # Errors
    /// It cannot be read, or is of another kind.
    pub fn open(input: &Input, config: &DataConfig, file: &Path) -> Result<Self> {
        let next = (source::of(config)?.open_inputs)(input, config, file)?;
        Ok(Self { file: file.to_owned(), next, before: None })
    }

    /// About `rows` further samples, normalised as the job does it, with what was fitted on the training part; None at the end.
    /// The test part of a piece holds its samples. Targets that the file lacks are NaN, or left out for classes. A file whose
    /// format allows nothing else comes in one piece.
    ///
    /// # Errors
    /// No sample at all, values that are not finite, a file that cannot be read or is damaged.
    pub fn next(&mut self, rows: usize) -> Result<Option<Dataset>> {
        let Some(mut piece) = (self.next)(rows)? else { return Ok(None) };
        let before = self.before.replace(self.before.unwrap_or(0) + piece.rows());
        if before.is_none() && piece.rows() == 0 {
            let what = ["there is no sample in it"].into_iter().chain(piece.notes.iter().map(String::as_str));
            let what: Vec<&str> = what.collect();
            return Err(Error::data(self.file.display().to_string(), what.join("; "), "give a file with samples"));
        }
        let sound = piece.read().and_then(|()| piece.require_finite());
        match (sound, before) {
            (Err(Error::Data { place, what, mend }), Some(rows @ 1..)) => {
                Err(Error::Data { place: format!("{place}, rows from {rows} on"), what, mend })
            }
            (sound, _) => sound.map(|()| Some(piece)),
        }
    }
}

/// What hands out one piece.
pub(super) fn one_piece(dataset: Dataset) -> Next {
    let mut dataset = Some(dataset);
    Box::new(move |_| Ok(dataset.take()))
}

/// All inputs of a file: see [`Inputs`].
///
/// # Errors
/// As there.
pub fn open_inputs(input: &Input, config: &DataConfig, file: &Path) -> Result<Dataset> {
    let whole = Inputs::open(input, config, file)?.next(usize::MAX)?;
    whole.ok_or_else(|| Error::data(file.display().to_string(), "there is no sample in it", "give a file with samples"))
}
