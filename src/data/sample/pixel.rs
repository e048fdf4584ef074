//! Images of u8 in memory as (N, H, W, C), turned into network input as a batch is filled.

use super::Samples;
use crate::data::sample::kept::{Bulk, Unread};
use crate::data::transform::augment::{Canvas, Change};
use crate::data::transform::normalize::{Scaling, Summary};
use crate::data::transform::split::Selection;
use crate::data::{Kept, Part, Raw};
use crate::error::Result;
use std::sync::Arc;

/// The images (H, W, C) of a part, one after the other.
pub(in crate::data) enum Images {
    /// In memory.
    Kept(Kept<u8>),
    /// Still in files.
    Unread(Arc<Unread>),
}

impl From<Unread> for Images {
    fn from(unread: Unread) -> Self {
        Images::Unread(Arc::new(unread))
    }
}

impl From<Vec<u8>> for Images {
    fn from(bytes: Vec<u8>) -> Self {
        Images::Kept(Box::new(bytes))
    }
}

/// The images of both parts.
pub(in crate::data) struct Pixels {
    of: [Images; 2],
    canvas: Canvas,
    /// One row (W, C) of factors: input = pixel * scale + black.
    scale: Vec<f32>,
}

impl Pixels {
    /// `of` holds whole images of the training and the test part; `scaling` is in units where u8 spans 0 to 1.
    pub fn new(of: [impl Into<Images>; 2], (h, w, c): (usize, usize, usize), scaling: &Scaling) -> Self {
        let scale = (0..w * c).map(|i| (1.0 / (255.0 * scaling.std[i % c])) as f32).collect();
        Self { of: of.map(Into::into), canvas: Canvas::new((h, w, c), scaling, true), scale }
    }

    /// One image (H, W, C).
    fn image(&self, part: Part, sample: usize) -> &[u8] {
        let Images::Kept(images) = &self.of[part as usize] else { panic!("an image is used before it is read") };
        let size = self.canvas.h * self.canvas.w * self.canvas.c;
        &images[sample * size..][..size]
    }

    /// Turns whole pixels of a row into network input.
    fn convert(&self, from: &[u8], to: &mut [f32]) {
        for (((to, &from), scale), black) in to.iter_mut().zip(from).zip(&self.scale).zip(&self.canvas.black) {
            *to = f32::from(from) * scale + black;
        }
    }
}

impl Samples for Pixels {
    fn len(&self, part: Part) -> usize {
        match &self.of[part as usize] {
            Images::Kept(bytes) => bytes.len() / self.size(),
            Images::Unread(unread) => unread.count,
        }
    }

    fn fill(&self, part: Part, sample: usize, held: Option<&[u8]>, change: Option<Change>, y: &mut [f32]) {
        let image = held.unwrap_or_else(|| self.image(part, sample));
        match change {
            Some(change) => change.apply(&self.canvas, image, y, |from, to| self.convert(from, to)),
            None => {
                let width = self.scale.len();
                for (from, to) in image.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
                    self.convert(from, to);
                }
            }
        }
    }

    fn raw(&self, part: Part, sample: usize) -> Raw<'_> {
        Raw::Pixels(self.image(part, sample))
    }

    fn bytes(&self) -> usize {
        let held = |images: &Images| if let Images::Kept(bytes) = images { bytes.len() } else { 0 };
        self.of.iter().map(held).sum()
    }

    fn size(&self) -> usize {
        self.canvas.h * self.scale.len()
    }

    fn unread(&self, part: Part) -> Option<&Arc<Unread>> {
        match &self.of[part as usize] {
            Images::Unread(unread) => Some(unread),
            Images::Kept(_) => None,
        }
    }

    fn summaries(&self) -> Vec<Summary> {
        match &self.of[0] {
            Images::Kept(pixels) => summaries(pixels, self.canvas.c),
            Images::Unread(_) => Vec::new(),
        }
    }

    fn keep(&mut self, unread: bool, keep: &mut dyn FnMut(&Bulk) -> Result<Kept<u8>>) -> Result<()> {
        let size = self.size();
        for images in self.of.iter_mut().rev() {
            *images = Images::Kept(match images {
                Images::Kept(_) if unread => continue,
                Images::Kept(bytes) => keep(&Bulk::in_memory(bytes, size))?,
                Images::Unread(unread) => keep(&Bulk::in_files(unread))?,
            });
        }
        Ok(())
    }
}

/// The summary of each channel of images (.., C), in units where u8 spans 0 to 1.
pub(in crate::data) fn summaries(pixels: &[u8], channels: usize) -> Vec<Summary> {
    let mut counts = vec![[0u64; 256]; channels];
    count(pixels, &mut counts);
    summaries_of(&counts)
}

/// The same of images that are learnt from and still in files.
///
/// # Errors
/// They cannot be read.
pub(in crate::data) fn unread_summaries(
    unread: &Unread,
    selection: &Option<Selection>,
    channels: usize,
) -> Result<Vec<Summary>> {
    let mut counts = vec![[0u64; 256]; channels];
    unread.pass(selection, &mut |pixels| count(pixels, &mut counts))?;
    Ok(summaries_of(&counts))
}

/// Counts the values of each channel.
fn count(pixels: &[u8], counts: &mut [[u64; 256]]) {
    for pixel in pixels.chunks_exact(counts.len()) {
        for (count, &value) in counts.iter_mut().zip(pixel) {
            count[usize::from(value)] += 1;
        }
    }
}

fn summaries_of(counts: &[[u64; 256]]) -> Vec<Summary> {
    let weighted =
        |count: &[u64; 256]| Summary::of(count.iter().enumerate().map(|(v, &n)| (v as f64 / 255.0, n as f64)));
    counts.iter().map(weighted).collect()
}

/// (C, H, W) to (H, W, C), appended to `pixels`.
pub(in crate::data) fn append_planar<S: Copy + Default>(planes: &[S], channels: usize, pixels: &mut Vec<S>) {
    if channels == 1 {
        return pixels.extend_from_slice(planes);
    }
    let start = pixels.len();
    pixels.resize(start + planes.len(), S::default());
    interleave(planes, channels, &mut pixels[start..]);
}

/// (C, H, W) to (H, W, C).
pub(in crate::data) fn interleave<S: Copy>(planes: &[S], channels: usize, image: &mut [S]) {
    let area = planes.len() / channels;
    if channels == 3 {
        let (red, rest) = planes.split_at(area);
        let (green, blue) = rest.split_at(area);
        for (((pixel, &r), &g), &b) in image.chunks_exact_mut(3).zip(red).zip(green).zip(blue) {
            pixel.copy_from_slice(&[r, g, b]);
        }
    } else {
        for (c, plane) in planes.chunks_exact(area).enumerate() {
            for (pixel, &value) in image.chunks_exact_mut(channels).zip(plane) {
                pixel[c] = value;
            }
        }
    }
}
