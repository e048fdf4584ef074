//! Samples of f32 in memory, normalised once: rows (N), sequences (T, F) and images (H, W, C).

use super::augment::{Canvas, Change};
use super::normalize::Scaling;
use super::{Kept, Part};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// The samples of both parts.
pub(super) struct Floats {
    /// Where they come from, for messages.
    place: String,
    of: [Kept<f32>; 2],
    len: usize,
    /// Of images.
    canvas: Option<Canvas>,
}

impl Floats {
    /// Normalises `of`, the raw samples of the training and the test part, whose last axis is the channels.
    pub fn new(place: &str, mut of: [Vec<f32>; 2], shape: Shape, scaling: &Scaling) -> Self {
        let channels = channels(shape);
        if !scaling.is_identity() {
            for row in of.iter_mut().flat_map(|values| values.chunks_exact_mut(channels)) {
                for (c, value) in row.iter_mut().enumerate() {
                    *value = scaling.apply(c, f64::from(*value));
                }
            }
        }
        let canvas = match shape {
            Shape::Image { h, w, c } => Some(Canvas::new((h, w, c), scaling, false)),
            _ => None,
        };
        let of = of.map(|values| Box::new(values) as Kept<f32>);
        Self { place: place.into(), of, len: shape.len(), canvas }
    }

    /// Errors: a value that is not finite, before normalisation or after.
    pub fn require_finite(&self) -> Result<()> {
        for (part, values) in ["training", "test"].into_iter().zip(&self.of) {
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                let what = format!("sample {} of the {part} part holds a value that is not finite", i / self.len);
                return Err(Error::data(&self.place, what, "replace or drop it, or normalise otherwise"));
            }
        }
        Ok(())
    }

    /// One sample, in memory order.
    pub fn sample(&self, part: Part, sample: usize) -> &[f32] {
        &self.of[part as usize][sample * self.len..][..self.len]
    }

    /// Number of samples of a part.
    pub fn len(&self, part: Part) -> usize {
        self.of[part as usize].len() / self.len
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.of.iter().map(|values| size_of_val(&values[..])).sum()
    }

    /// The samples of both parts, to be kept elsewhere.
    pub fn kept(&mut self) -> &mut [Kept<f32>; 2] {
        &mut self.of
    }

    /// Writes one sample, changed if it is to be.
    pub fn fill(&self, part: Part, sample: usize, change: Option<Change>, y: &mut [f32]) {
        let from = self.sample(part, sample);
        match (change, &self.canvas) {
            (Some(change), Some(canvas)) => change.apply(canvas, from, y, |from, to| to.copy_from_slice(from)),
            _ => y.copy_from_slice(from),
        }
    }
}

/// The size of a sample's last axis in memory: what is normalised apart.
pub(super) fn channels(shape: Shape) -> usize {
    match shape {
        Shape::Image { c, .. } => c,
        Shape::Sequence { f, .. } => f,
        Shape::Vector { n } => n,
    }
}
