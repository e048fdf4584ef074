//! Samples as they are in their files, for those who look at data or copy them instead of training.

use super::transform::normalize::Summary;
use super::transform::window::Series;
use super::{Dataset, Part};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize, Resident};
use crate::error::Result;

/// One sample's elements, in memory order: images (H, W, C), sequences (T, F), rows (N).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Raw<'a> {
    /// An image of u8.
    Pixels(&'a [u8]),
    /// Anything of f32.
    Floats(&'a [f32]),
    /// A window (T, F) of a series.
    Window(&'a [f64]),
}

impl Dataset {
    /// As [`Dataset::open_unread`], but samples are to be read into memory, nothing is normalised, changed or kept back, and values that are not finite stay.
    ///
    /// # Errors
    /// As there.
    pub fn open_raw(config: &DataConfig, seed: u64) -> Result<Dataset> {
        let normalize = Some(Normalize::Named(NormalizeMethod::None));
        let resident = Resident::Yes;
        let config = DataConfig { normalize, resident, augment: Vec::new(), validation: 0.0, ..config.clone() };
        let mut dataset = Self::open_unchecked(&config, seed)?;
        dataset.any_value = true;
        Ok(dataset)
    }

    /// A sample before normalisation; for f32 that is so only after [`Dataset::open_raw`]. Panics if it is not below
    /// [`Dataset::len`], or still in a file.
    pub fn raw(&self, part: Part, sample: u32) -> Raw<'_> {
        let (part, sample) = self.place(part, sample);
        self.samples.raw(part, sample)
    }

    /// The series that samples are windows of; none where they are no windows.
    pub fn series(&self) -> &[Series] {
        self.labels.series()
    }

    /// The names of the columns of each series: inputs, then targets that are none of them.
    pub fn series_columns(&self) -> Vec<String> {
        let [features, targets] = &self.columns;
        let others = targets.iter().filter(|name| !features.contains(name));
        features.iter().chain(others).cloned().collect()
    }

    /// For each column of a table that has any: how many rows have an empty field there, and so are no samples.
    pub fn missing(&self) -> &[(String, u64)] {
        &self.missing
    }

    /// What normalisations are fitted on, as a text: a line a channel of the training part, of samples in memory.
    pub fn statistics(&self) -> String {
        Summary::text(&self.samples.summaries())
    }

    /// [`Dataset::require_finite`], unless all values are welcome.
    ///
    /// # Errors
    /// As there.
    pub fn check(&self) -> Result<()> {
        if self.any_value { Ok(()) } else { self.require_finite() }
    }

    /// # Errors
    /// A sample in memory holds a value that is not finite.
    pub fn require_finite(&self) -> Result<()> {
        self.samples.require_finite()
    }
}
