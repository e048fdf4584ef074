//! Random changes to an image, drawn from a sample's own stream, in the order of the job.
//!
//! Crops and flips are gathered into one [`View`], by which the image is copied; what else there is changes the copy.

mod canvas;
mod view;
mod warp;

pub(in crate::data) use canvas::Canvas;

use crate::config::{Augmentation, DataConfig, PaddingMode, Span};
use crate::error::Result;
use crate::rng::{Stream, permute};
use crate::shape::Shape;
use view::View;
use warp::Warp;

/// How one image is to be changed: steps, what they draw from, and room for an image.
pub(in crate::data) struct Change<'a> {
    pub steps: &'a [Augmentation],
    pub stream: Stream,
    pub room: &'a mut [f32],
}

impl Change<'_> {
    /// Writes `image` (H, W, C), changed; `convert` turns pixels of a row into network input.
    pub fn apply<S>(mut self, canvas: &Canvas, image: &[S], y: &mut [f32], convert: impl Fn(&[S], &mut [f32])) {
        let Canvas { h, w, c, .. } = *canvas;
        let (mut view, mut copied) = (View::whole(h, w), false);
        let mut settle = |view: &mut View, y: &mut [f32], room: &mut [f32]| {
            if !copied {
                view.apply(image, &canvas.black, c, y, &convert);
            } else if *view != View::whole(h, w) {
                room.copy_from_slice(y);
                view.apply(room, &canvas.black, c, y, |from, to| to.copy_from_slice(from));
            }
            (*view, copied) = (View::whole(h, w), true);
        };
        for step in self.steps {
            match *step {
                Augmentation::RandomCrop { padding, padding_mode } => {
                    let bound = 2 * padding as u32 + 1;
                    let down = self.stream.below(bound) as isize - padding as isize;
                    let right = self.stream.below(bound) as isize - padding as isize;
                    match padding_mode {
                        PaddingMode::Zeros => view.crop(down, right),
                        PaddingMode::Reflect => {
                            if !view.may_reflect() {
                                settle(&mut view, y, self.room);
                            }
                            view.crop_reflected(down, right);
                        }
                    }
                }
                // Of a whole batch: see `Dataset::mix`.
                Augmentation::Mixup { .. } => {}
                Augmentation::HorizontalFlip { p } => {
                    if self.stream.uniform() < p {
                        view.columns.flip();
                    }
                }
                Augmentation::VerticalFlip { p } => {
                    if self.stream.uniform() < p {
                        view.rows.flip();
                    }
                }
                Augmentation::RandomErasing { p, scale, ratio, value } => {
                    if self.stream.uniform() < p {
                        let [rows, columns] = rectangle(&mut self.stream, [h, w], scale, ratio);
                        settle(&mut view, y, self.room);
                        canvas.erase(rows, columns, value, y);
                    }
                }
                Augmentation::RandomRotation { degrees } => {
                    // The other way round than `affine`, as in torchvision.
                    let warp = Warp::new(-within(&mut self.stream, about(degrees, 0.0)), [0.0; 2], 1.0, 0.0);
                    settle(&mut view, y, self.room);
                    self.room.copy_from_slice(y);
                    warp.apply(canvas, self.room, y);
                }
                Augmentation::RandomAffine { degrees, translate, scale, shear } => {
                    let degrees = within(&mut self.stream, about(degrees, 0.0));
                    let most = [translate[0] * w as f32, translate[1] * h as f32];
                    let by = most.map(|most| within(&mut self.stream, [-most, most]).round());
                    let scale = within(&mut self.stream, scale);
                    let warp = Warp::new(degrees, by, scale, within(&mut self.stream, about(shear, 0.0)));
                    settle(&mut view, y, self.room);
                    self.room.copy_from_slice(y);
                    warp.apply(canvas, self.room, y);
                }
                Augmentation::ColorJitter { brightness, contrast, saturation } => {
                    settle(&mut view, y, self.room);
                    let factors = [brightness, contrast, saturation].map(factors);
                    let factors = factors.map(|range| within(&mut self.stream, range));
                    let mut order = [0, 1, 2];
                    permute(&mut self.stream, &mut order);
                    for which in order {
                        match (which, factors[which as usize]) {
                            // Not worth a pass, and without rounding.
                            (_, 1.0) => {}
                            (0, factor) => canvas.brighten(factor, y),
                            (1, factor) => canvas.contrast(factor, y),
                            (_, factor) => canvas.saturate(factor, y),
                        }
                    }
                }
            }
        }
        settle(&mut view, y, self.room);
    }
}

/// Uniform in a range.
fn within(stream: &mut Stream, [from, to]: [f32; 2]) -> f32 {
    from + (to - from) * stream.uniform()
}

/// The range of what lies about `middle`.
fn about(span: Span, middle: f32) -> [f32; 2] {
    match span {
        Span::About(by) => [middle - by, middle + by],
        Span::Between(range) => range,
    }
}

/// The range of a factor of colours, which does not turn them over.
fn factors(span: Span) -> [f32; 2] {
    about(span, 1.0).map(|factor| factor.max(0.0))
}

/// Rows and columns of a random rectangle, by torchvision's way: ten tries to draw one smaller than the image, else nothing.
fn rectangle(stream: &mut Stream, size: [usize; 2], scale: [f32; 2], ratio: [f32; 2]) -> [std::ops::Range<usize>; 2] {
    let area = (size[0] * size[1]) as f64;
    let log_ratio = ratio.map(|ratio| libm::log(f64::from(ratio)) as f32);
    for _ in 0..10 {
        let area = area * f64::from(within(stream, scale));
        let ratio = libm::exp(f64::from(within(stream, log_ratio)));
        let sides = [(area * ratio).sqrt().round() as usize, (area / ratio).sqrt().round() as usize];
        if sides[0] < size[0] && sides[1] < size[1] {
            return [0, 1].map(|axis| {
                let first = stream.below((size[axis] - sides[axis] + 1) as u32) as usize;
                first..first + sides[axis]
            });
        }
    }
    [0..0, 0..0]
}

/// Checks a job's augmentations against the shape of its samples.
pub(in crate::data) fn check(config: &DataConfig, input: Shape) -> Result<()> {
    // Mixing asks for no image; after it there is no one sample to change.
    let (mixing, changing): (Vec<_>, Vec<_>) =
        config.augment.iter().partition(|step| matches!(step, Augmentation::Mixup { .. }));
    if mixing.len() > 1 || !mixing.is_empty() && config.augment.last() != mixing.first().copied() {
        return Err(config.source.error(
            "augment",
            "mixup mixes what the other steps have made",
            "give it once, as the last",
        ));
    }
    for alpha in
        mixing.iter().filter_map(|step| if let Augmentation::Mixup { alpha } = step { Some(*alpha) } else { None })
    {
        if !(1e-3..=1e3).contains(&alpha) {
            let what = format!("alpha = {alpha} is out of bounds");
            return Err(config.source.error("augment", what, "use a number such as 0.2"));
        }
    }
    let Shape::Image { h, w, c } = input else {
        if changing.is_empty() {
            return Ok(());
        }
        let what = format!("samples of shape {input} are no images");
        return Err(config.source.error("augment", what, "remove data.augment"));
    };
    for step in changing {
        if let Some((what, mend)) = fault(step, h, w, c) {
            return Err(config.source.error("augment", what, mend));
        }
    }
    Ok(())
}

/// What is wrong with a step for images of that size, and what to do about it.
fn fault(step: &Augmentation, h: usize, w: usize, c: usize) -> Option<(String, &'static str)> {
    let probability =
        |p: f32| (!(0.0..=1.0).contains(&p)).then(|| (format!("p = {p} is no probability"), "use 0 to 1"));
    let range = |name: &str, range: [f32; 2], least: f32, most: f32, mend: &'static str| {
        let good = least <= range[0] && range[0] <= range[1] && range[1] <= most;
        (!good).then(|| (format!("{name} = [{}, {}] is out of bounds", range[0], range[1]), mend))
    };
    let degrees = |name: &str, span: Span, most: f32, mend: &'static str| {
        let (ends, about) = (about(span, 0.0), matches!(span, Span::About(_)));
        let one = ends[1];
        let fault = range(name, ends, -most, most, mend)?;
        Some(if about { (format!("{name} = {one} is out of bounds"), mend) } else { fault })
    };
    match *step {
        Augmentation::RandomCrop { padding, .. } if padding >= h.min(w) => {
            Some((format!("padding {padding} could crop a {h}x{w} image away"), "use less, such as 4"))
        }
        Augmentation::RandomCrop { .. } => None,
        Augmentation::Mixup { .. } => None,
        Augmentation::HorizontalFlip { p } | Augmentation::VerticalFlip { p } => probability(p),
        Augmentation::RandomErasing { p, scale, ratio, value } => probability(p)
            .or_else(|| range("scale", scale, 0.0, 1.0, "give the least and greatest share of the area, in 0 to 1"))
            .or_else(|| range("ratio", ratio, 1e-3, 1e3, "give the least and greatest height over width, above 0"))
            .or_else(|| range("value", [value; 2], -1e6, 1e6, "use 0 for black to 1 for white")),
        Augmentation::RandomRotation { degrees: by } => degrees("degrees", by, 360.0, "use 0 to 360, or a range"),
        Augmentation::RandomAffine { degrees: by, translate, scale, shear } => {
            degrees("degrees", by, 360.0, "use 0 to 360, or a range")
                .or_else(|| {
                    let bad = translate.into_iter().find(|share| !(0.0..=1.0).contains(share))?;
                    Some((format!("translate of {bad} is no share"), "give shares of width and height, in 0 to 1"))
                })
                .or_else(|| range("scale", scale, 1e-3, 1e3, "give the least and greatest factor, above 0"))
                .or_else(|| degrees("shear", shear, 89.0, "use 0 to 89, or a range"))
        }
        Augmentation::ColorJitter { brightness, contrast, saturation } => {
            for (name, span) in [("brightness", brightness), ("contrast", contrast), ("saturation", saturation)] {
                let least = if let Span::About(by) = span { by } else { about(span, 1.0)[0] };
                let [from, to] = about(span, 1.0);
                if !(least >= 0.0 && from <= to && to <= 1e3) {
                    return Some((
                        format!("{name} is out of bounds"),
                        "use a number such as 0.2, or a range such as [0.8, 1.2]",
                    ));
                }
            }
            let grey = c != 3 && saturation != Span::default();
            grey.then(|| (format!("saturation needs three channels, images have {c}"), "remove saturation"))
        }
    }
}

#[cfg(test)]
mod tests;
