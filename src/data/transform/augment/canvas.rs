//! What an image is painted on: its size, and what black, white and grey are in network input.

use crate::data::transform::normalize::Scaling;

/// Images of a data set.
pub(in crate::data) struct Canvas {
    pub h: usize,
    pub w: usize,
    pub c: usize,
    /// One row (W, C) of what raw 0 becomes.
    pub black: Vec<f32>,
    /// Of each channel, by how much input grows as the raw value grows by 1: for u8 from black to white.
    pub unit: Vec<f32>,
    /// Whether raw values end at 0 and 1, as those of u8 images do.
    pub bounded: bool,
}

/// How much of red, green and blue is in a grey, as in torchvision.
const GREY: [f32; 3] = [0.2989, 0.587, 0.114];

impl Canvas {
    /// Of images (H, W, C) normalised by `scaling`.
    pub fn new((h, w, c): (usize, usize, usize), scaling: &Scaling, bounded: bool) -> Self {
        let black = (0..w * c).map(|i| scaling.apply(i % c, 0.0)).collect();
        let unit = (0..c).map(|c| (1.0 / scaling.std[c]) as f32).collect();
        Self { h, w, c, black, unit, bounded }
    }

    /// What the raw value `raw` of a channel becomes.
    pub fn paint(&self, channel: usize, raw: f32) -> f32 {
        self.black[channel] + self.unit[channel] * raw
    }

    /// The grey of a pixel, raw: of three channels that of red, green and blue, else their mean.
    fn grey(&self, pixel: &[f32]) -> f32 {
        let raw = pixel.iter().zip(&self.black).zip(&self.unit).map(|((value, black), unit)| (value - black) / unit);
        match self.c {
            1 => raw.sum(),
            3 => raw.zip(GREY).map(|(raw, part)| raw * part).sum(),
            c => raw.sum::<f32>() / c as f32,
        }
    }

    /// Moves every pixel away from black.
    pub fn brighten(&self, factor: f32, y: &mut [f32]) {
        self.blend(factor, |_| 0.0, y);
    }

    /// Moves every pixel away from the image's mean grey.
    pub fn contrast(&self, factor: f32, y: &mut [f32]) {
        let sum: f64 = y.chunks_exact(self.c).map(|pixel| f64::from(self.grey(pixel))).sum();
        let mean = (sum / (self.h * self.w) as f64) as f32;
        self.blend(factor, |_| mean, y);
    }

    /// Moves every pixel away from its own grey.
    pub fn saturate(&self, factor: f32, y: &mut [f32]) {
        self.blend(factor, |pixel| self.grey(pixel), y);
    }

    /// Every pixel becomes `factor` of itself and the rest of a grey, no darker than black and no lighter than white.
    fn blend(&self, factor: f32, grey: impl Fn(&[f32]) -> f32, y: &mut [f32]) {
        for pixel in y.chunks_exact_mut(self.c) {
            let grey = grey(pixel);
            for (channel, value) in pixel.iter_mut().enumerate() {
                let other = self.paint(channel, grey);
                *value = other + factor * (*value - other);
                if self.bounded {
                    *value = value.max(self.black[channel]).min(self.paint(channel, 1.0));
                }
            }
        }
    }

    /// Paints a rectangle in the colour `raw`.
    pub fn erase(&self, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>, raw: f32, y: &mut [f32]) {
        for row in y.chunks_exact_mut(self.black.len()).skip(rows.start).take(rows.len()) {
            for (i, value) in row[columns.start * self.c..columns.end * self.c].iter_mut().enumerate() {
                *value = self.paint(i % self.c, raw);
            }
        }
    }
}
