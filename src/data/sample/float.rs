//! Samples of f32 in memory, normalised once: rows (N), sequences (T, F) and images (H, W, C).

use super::Samples;
use super::kept::Bulk;
use crate::data::transform::augment::{Canvas, Change};
use crate::data::transform::normalize::Scaling;
use crate::data::{Kept, Part, Raw};
use crate::error::{Error, Result};
use crate::shape::Shape;
use std::ops::Deref;

/// Bytes that are f32, aligned.
struct Cast(Kept<u8>);

impl Deref for Cast {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The samples of both parts.
pub(in crate::data) struct Floats {
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

    fn sample(&self, part: Part, sample: usize) -> &[f32] {
        &self.of[part as usize][sample * self.len..][..self.len]
    }
}

impl Samples for Floats {
    fn len(&self, part: Part) -> usize {
        self.of[part as usize].len() / self.len
    }

    fn fill(&self, part: Part, sample: usize, change: Option<Change>, y: &mut [f32]) {
        let from = self.sample(part, sample);
        match (change, &self.canvas) {
            (Some(change), Some(canvas)) => change.apply(canvas, from, y, |from, to| to.copy_from_slice(from)),
            _ => y.copy_from_slice(from),
        }
    }

    fn raw(&self, part: Part, sample: usize) -> Raw<'_> {
        Raw::Floats(self.sample(part, sample))
    }

    fn bytes(&self) -> usize {
        self.of.iter().map(|values| size_of_val(&values[..])).sum()
    }

    fn keep(&mut self, unread: bool, keep: &mut dyn FnMut(&Bulk) -> Result<Kept<u8>>) -> Result<()> {
        for values in self.of.iter_mut().rev().filter(|_| !unread) {
            let bytes = bytemuck::cast_slice(values);
            *values = Box::new(Cast(keep(&Bulk::in_memory(bytes, size_of::<f32>()))?));
        }
        Ok(())
    }

    /// # Errors
    /// Such a value, before normalisation or after.
    fn require_finite(&self) -> Result<()> {
        for (part, values) in ["training", "test"].into_iter().zip(&self.of) {
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                let what = format!("sample {} of the {part} part holds a value that is not finite", i / self.len);
                return Err(Error::data(&self.place, what, "replace or drop it, or normalise otherwise"));
            }
        }
        Ok(())
    }
}

/// The size of a sample's last axis in memory: what is normalised apart.
pub(in crate::data) fn channels(shape: Shape) -> usize {
    match shape {
        Shape::Image { c, .. } => c,
        Shape::Sequence { f, .. } => f,
        Shape::Vector { n } => n,
    }
}
