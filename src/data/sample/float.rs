//! Samples of f32 in memory, normalised once: rows (N), sequences (T, F) and images (H, W, C).

use super::Samples;
use super::kept::{Bulk, Read, Unread, not_finite};
use crate::data::transform::augment::{Canvas, Change};
use crate::data::transform::normalize::{Scaling, Summary};
use crate::data::transform::split::Selection;
use crate::data::{Kept, Part, Raw};
use crate::error::Result;
use crate::shape::Shape;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Bytes that are f32, aligned.
struct Cast(Kept<u8>);

impl Deref for Cast {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The samples of a part, one after the other.
pub(in crate::data) enum Rows {
    /// In memory.
    Kept(Kept<f32>),
    /// Still in files.
    Unread(Arc<Unread>),
}

impl From<Vec<f32>> for Rows {
    fn from(values: Vec<f32>) -> Self {
        Rows::Kept(Box::new(values))
    }
}

/// What the samples of a part are called in messages.
const PARTS: [&str; 2] = ["training", "test"];

/// The samples of both parts.
pub(in crate::data) struct Floats {
    /// Where they come from, for messages.
    place: String,
    of: [Rows; 2],
    len: usize,
    channels: usize,
    /// Of images.
    canvas: Option<Canvas>,
}

impl Floats {
    /// Normalises `of`, the raw samples of the training and the test part, whose last axis is the channels.
    pub fn new(place: &str, mut of: [Vec<f32>; 2], shape: Shape, scaling: &Scaling) -> Self {
        of.iter_mut().for_each(|values| normalise(values, channels(shape), scaling));
        let canvas = match shape {
            Shape::Image { h, w, c } => Some(Canvas::new((h, w, c), scaling, false)),
            _ => None,
        };
        Self { place: place.into(), of: of.map(Rows::from), len: shape.len(), channels: channels(shape), canvas }
    }

    /// With raw samples that are still in files in place of some; they are normalised as they are read.
    pub fn with_unread(mut self, unread: [Option<Unread>; 2], shape: Shape, scaling: &Scaling) -> Self {
        for ((rows, unread), part) in self.of.iter_mut().zip(unread).zip(PARTS) {
            let Some(unread) = unread else { continue };
            let (read, scaling, channels) = (unread.read, scaling.clone(), channels(shape));
            let read: Read = Box::new(move |samples: Range<usize>, to: &mut [u8]| {
                read(samples, to)?;
                normalise(bytemuck::cast_slice_mut(to), channels, &scaling);
                Ok(())
            });
            let finite = Some((self.place.clone(), part));
            *rows = Rows::Unread(Arc::new(Unread { read, finite, ..unread }));
        }
        self
    }

    fn sample(&self, part: Part, sample: usize) -> &[f32] {
        let Rows::Kept(values) = &self.of[part as usize] else { panic!("a sample is used before it is read") };
        &values[sample * self.len..][..self.len]
    }
}

/// Normalises values whose last axis is the channels.
fn normalise(values: &mut [f32], channels: usize, scaling: &Scaling) {
    if !scaling.is_identity() {
        for row in values.chunks_exact_mut(channels) {
            for (c, value) in row.iter_mut().enumerate() {
                *value = scaling.apply(c, f64::from(*value));
            }
        }
    }
}

impl Samples for Floats {
    fn len(&self, part: Part) -> usize {
        match &self.of[part as usize] {
            Rows::Kept(values) => values.len() / self.len,
            Rows::Unread(unread) => unread.count,
        }
    }

    fn fill(&self, part: Part, sample: usize, held: Option<&[u8]>, change: Option<Change>, y: &mut [f32]) {
        let from = held.map_or_else(|| self.sample(part, sample), bytemuck::cast_slice);
        match (change, &self.canvas) {
            (Some(change), Some(canvas)) => change.apply(canvas, from, y, |from, to| to.copy_from_slice(from)),
            _ => y.copy_from_slice(from),
        }
    }

    fn raw(&self, part: Part, sample: usize) -> Raw<'_> {
        Raw::Floats(self.sample(part, sample))
    }

    fn bytes(&self) -> usize {
        self.of.iter().map(|rows| if let Rows::Kept(values) = rows { size_of_val(&values[..]) } else { 0 }).sum()
    }

    fn size(&self) -> usize {
        self.len * size_of::<f32>()
    }

    fn unread(&self, part: Part) -> Option<&Arc<Unread>> {
        match &self.of[part as usize] {
            Rows::Unread(unread) => Some(unread),
            Rows::Kept(_) => None,
        }
    }

    fn summaries(&self) -> Vec<Summary> {
        match &self.of[0] {
            Rows::Kept(values) => Summary::of_channels(values, self.channels),
            Rows::Unread(_) => Vec::new(),
        }
    }

    fn keep(&mut self, unread: bool, keep: &mut dyn FnMut(&Bulk) -> Result<Kept<u8>>) -> Result<()> {
        for rows in self.of.iter_mut().rev() {
            let kept = match rows {
                Rows::Kept(_) if unread => continue,
                Rows::Kept(values) => keep(&Bulk::in_memory(bytemuck::cast_slice(values), 4 * self.len))?,
                Rows::Unread(unread) => keep(&Bulk::in_files(unread))?,
            };
            *rows = Rows::Kept(Box::new(Cast(kept)));
        }
        Ok(())
    }

    /// # Errors
    /// Such a value in memory, before normalisation or after.
    fn require_finite(&self) -> Result<()> {
        for (part, rows) in PARTS.into_iter().zip(&self.of) {
            let Rows::Kept(values) = rows else { continue };
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return Err(not_finite(&self.place, part, i / self.len));
            }
        }
        Ok(())
    }
}

/// The summary of each channel of samples that are learnt from and still in files.
///
/// # Errors
/// They cannot be read.
pub(in crate::data) fn unread_summaries(
    unread: &Unread,
    selection: &Option<Selection>,
    channels: usize,
) -> Result<Vec<Summary>> {
    Summary::of_blocks(channels, |each| unread.pass(selection, &mut |bytes| each(bytemuck::cast_slice(bytes))))
}

/// The size of a sample's last axis in memory: what is normalised apart.
pub(in crate::data) fn channels(shape: Shape) -> usize {
    match shape {
        Shape::Image { c, .. } => c,
        Shape::Sequence { f, .. } => f,
        Shape::Vector { n } => n,
    }
}
