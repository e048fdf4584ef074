//! Images: pixels by channel, brightness and contrast, mean images.

use super::distribution::{Distribution, Histogram, Moments};
use super::gather::{gathered, shared};
use super::sample::own_blocks;
use crate::comm::Comm;
use crate::data::{Dataset, Part, Raw};
use crate::error::Result;
use crate::shape::Shape;
use crate::shard::own;
use serde::Serialize;

/// One channel of a part's images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Channel {
    /// `red`, `green`, `blue`, `grey`, or its number.
    pub name: String,
    /// Of all its pixels, as `data.normalize` takes it: u8 spans 0 to 1.
    pub mean: f64,
    /// Of all its pixels, likewise.
    pub deviation: f64,
    /// The lowest value as it is in the file.
    pub min: f64,
    /// The highest.
    pub max: f64,
    /// How often which values are there.
    pub histogram: Histogram,
}

/// A part's images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Images {
    /// Channel by channel.
    pub channels: Vec<Channel>,
    /// Each image's mean over all its pixels and channels; u8 spans 0 to 1.
    pub brightness: Option<Distribution>,
    /// Each image's deviation over all its pixels and channels.
    pub contrast: Option<Distribution>,
}

/// What a pixel of 1 in a network's input is in the file.
pub(super) fn white(raw: Raw) -> f64 {
    if matches!(raw, Raw::Pixels(_)) { 255.0 } else { 1.0 }
}

/// The finite values of a channel of a sample, as they are in the file.
fn pixels(raw: Raw<'_>, channel: usize, channels: usize) -> impl Iterator<Item = f64> + Clone {
    let (bytes, floats): (&[u8], &[f32]) = match raw {
        Raw::Pixels(bytes) => (bytes, &[]),
        Raw::Floats(floats) => (&[], floats),
        Raw::Window(_) => (&[], &[]),
    };
    let bytes = bytes.iter().skip(channel).step_by(channels).map(|&v| f64::from(v));
    bytes.chain(floats.iter().skip(channel).step_by(channels).map(|&v| f64::from(v))).filter(|v| v.is_finite())
}

/// The images of a part, on rank 0; None for other samples. Collective.
pub(super) fn images(data: &Dataset, part: Part, comm: &dyn Comm) -> Result<Option<Images>> {
    let Shape::Image { c, .. } = data.input() else { return Ok(None) };
    if data.len(part) == 0 {
        return Ok(None);
    }
    let blocks = own_blocks(data, part, comm);
    let (mut moments, mut of_images) = (Vec::new(), Vec::new());
    for block in blocks.clone() {
        moments.push(channels_of(c, |channel| block.clone().flat_map(move |s| pixels(data.raw(part, s), channel, c))));
        of_images.extend(block.map(|sample| {
            let all = Moments::of(pixels(data.raw(part, sample), 0, 1));
            (all.mean, all.deviation())
        }));
    }
    let (moments, of_images) = (gathered(comm, moments)?, gathered(comm, of_images)?);
    let mut channels = vec![Moments::default(); c];
    for of_block in moments {
        channels.iter_mut().zip(of_block).for_each(|(total, of_block)| *total = total.merge(of_block));
    }
    let channels = shared(comm, channels)?;
    let white = white(data.raw(part, 0));
    let (low, high) = match white > 1.0 {
        true => (0.0, 256.0),
        false => channels
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), of| (low.min(of.min), high.max(of.max))),
    };
    let histograms: Vec<Vec<u64>> = (0..c)
        .map(|channel| {
            let values = blocks.iter().cloned().flatten().flat_map(|s| pixels(data.raw(part, s), channel, c));
            Histogram::of(values, low, high).counts
        })
        .collect();
    let mut counts = vec![Vec::new(); c];
    for (index, of_rank) in gathered(comm, histograms)?.into_iter().enumerate() {
        add(&mut counts[index % c], &of_rank);
    }
    if comm.rank() > 0 {
        return Ok(None);
    }
    let named = |channel: usize| match c {
        1 => "grey".to_owned(),
        3 => ["red", "green", "blue"][channel].to_owned(),
        _ => channel.to_string(),
    };
    let channels = channels.iter().zip(counts).enumerate().map(|(index, (of, counts))| Channel {
        name: named(index),
        mean: of.mean / white,
        deviation: of.deviation() / white,
        min: of.min,
        max: of.max,
        histogram: Histogram { from: low, to: high, counts },
    });
    let (brightness, contrast): (Vec<f64>, Vec<f64>) = of_images.iter().map(|(b, c)| (b / white, c / white)).unzip();
    Ok(Some(Images {
        channels: channels.collect(),
        brightness: Distribution::of(brightness),
        contrast: Distribution::of(contrast),
    }))
}

fn channels_of<I: Iterator<Item = f64> + Clone>(c: usize, values: impl Fn(usize) -> I) -> Vec<Moments> {
    (0..c).map(|channel| Moments::of(values(channel))).collect()
}

fn add(total: &mut Vec<u64>, counts: &[u64]) {
    total.resize(counts.len(), 0);
    total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
}

/// The mean of the training images of each of the first `classes` classes, (H, W, C) with white as 1, on rank 0; a class is one
/// rank's, so that its images add up in their order. Without classes that of all. Collective.
pub(super) fn means(data: &Dataset, classes: usize, comm: &dyn Comm) -> Result<Vec<Vec<f32>>> {
    let mine = own(classes, comm.rank(), comm.size());
    let mut sums = vec![(0u64, vec![0.0; data.input().len()]); mine.len()];
    for sample in 0..data.len(Part::Train) as u32 {
        let class = data.class(Part::Train, sample).unwrap_or(0) as usize;
        if let Some((count, sum)) = class.checked_sub(mine.start).and_then(|class| sums.get_mut(class)) {
            *count += 1;
            sum.iter_mut().zip(pixels(data.raw(Part::Train, sample), 0, 1)).for_each(|(sum, pixel)| *sum += pixel);
        }
    }
    let white = white(data.raw(Part::Train, 0));
    let mean = |(count, sum): (u64, Vec<f64>)| sum.iter().map(|v| (v / count.max(1) as f64 / white) as f32).collect();
    gathered(comm, sums.into_iter().map(mean).collect())
}
