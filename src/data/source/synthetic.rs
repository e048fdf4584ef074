//! `synthetic`: made data of any shape that can be learned: classes are noisy copies of a prototype each, values are sines
//! of random projections. A pure function of the seed.

use super::{Source, npz};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::data::Dataset;
use crate::data::sample::Samples;
use crate::data::sample::float::{Floats, channels};
use crate::data::sample::pixel::{Pixels, summaries};
use crate::data::transform::label::{Labels, numbered};
use crate::data::transform::normalize::{Scaling, Summary};
use crate::data::transform::split::{Selection, learnt};
use crate::error::Result;
use crate::resource::require_memory;
use crate::rng::{Purpose, Stream};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

pub(super) const SOURCE: Source = Source {
    name: "synthetic",
    doc: "made data of any shape, for trying and timing",
    keys: &[
        ("shape", "of a sample: [channels, height, width], [time, features] or [features] ([3, 32, 32])"),
        ("classes", "number of classes (10)"),
        ("values", "if not 0, that many values to predict instead of a class (0)"),
        ("samples", "training samples (1024)"),
        ("test_samples", "test samples (256)"),
    ],
    open,
    open_inputs: npz::SOURCE.open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Named(NormalizeMethod::Standard),
};

/// More elements than this are taken for a mistake.
const MOST_ELEMENTS: usize = 1 << 32;

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    shape: Vec<usize>,
    classes: usize,
    values: usize,
    samples: usize,
    test_samples: usize,
}

impl Default for Keys {
    fn default() -> Self {
        Self { shape: vec![3, 32, 32], classes: 10, values: 0, samples: 1024, test_samples: 256 }
    }
}

impl Keys {
    /// The shape of a sample, with all keys checked.
    fn check(&self, config: &DataConfig) -> Result<Shape> {
        let error = |key, what: String, mend| Err(config.source.error(key, what, mend));
        let shape = match self.shape[..] {
            [c, h, w] => Shape::Image { c, h, w },
            [t, f] => Shape::Sequence { t, f },
            [n] => Shape::Vector { n },
            _ => return error("shape", format!("{} dimensions", self.shape.len()), "give 1 to 3, such as [3, 32, 32]"),
        };
        if self.shape.contains(&0) {
            return error("shape", "a dimension of 0".into(), "use 1 or more");
        }
        let sizes = [self.samples, self.test_samples, self.classes, self.values.max(1)];
        let fits = sizes.iter().all(|&count| {
            let elements = self.shape.iter().try_fold(count.max(1), |n, &dim| n.checked_mul(dim));
            elements.is_some_and(|n| n <= MOST_ELEMENTS)
        });
        if !fits || self.samples.max(self.test_samples).checked_mul(self.values).is_none_or(|n| n > MOST_ELEMENTS) {
            return error("samples", "more than 2^32 elements".into(), "use fewer or smaller samples");
        }
        if self.samples == 0 {
            return error("samples", "no training sample".into(), "use 1 or more");
        }
        if self.classes == 0 {
            return error("classes", "0 classes".into(), "use 1 or more, or values for a regression");
        }
        // Every element as f32, and images as u8 beside it.
        let samples = (self.samples + self.test_samples) as f64;
        let bytes = 5.0 * (samples + self.classes.max(self.values) as f64) * shape.len() as f64
            + 8.0 * samples * self.values.max(1) as f64;
        require_memory(&format!("{}, data.samples", config.source.place), bytes, "use fewer or smaller samples")?;
        Ok(shape)
    }
}

fn open(config: &DataConfig, seed: u64) -> Result<Dataset> {
    let keys: Keys = config.source.parse()?;
    let input = keys.check(config)?;
    let normalize = super::normalization(config)?;
    let selection = Selection::drawn(config, seed, keys.samples);
    let teacher = Teacher::new(seed, input, &keys);
    let ((train, train_targets), (test, test_targets)) =
        (teacher.samples(1, keys.samples), teacher.samples(2, keys.test_samples));
    let labels = if keys.values > 0 {
        Labels::values(config, &normalize, keys.values, [train_targets, test_targets], &selection)?
    } else {
        let of = [train_targets, test_targets].map(|targets| targets.into_iter().map(|class| class as u32).collect());
        Labels::Classes { names: numbered(keys.classes), of }
    };
    let notes = vec![format!("{} training and {} test samples of {input}, made", keys.samples, keys.test_samples)];
    let c = channels(input);
    let (inputs, scaling): (Box<dyn Samples>, Scaling) = if let Shape::Image { h, w, .. } = input {
        let pixel = |v: f32| (127.5 + 63.0 * v).clamp(0.0, 255.0) as u8;
        let of = [train, test].map(|part| part.into_iter().map(pixel).collect::<Vec<u8>>());
        let scaling =
            Scaling::new(config, &normalize, c, || Ok(summaries(&learnt(&selection, &of[0], input.len()), c)))?;
        (Box::new(Pixels::new(of, (h, w, c), &scaling)), scaling)
    } else {
        let known = learnt(&selection, &train, input.len());
        let scaling = Scaling::new(config, &normalize, c, || Ok(Summary::of_channels(&known, c)))?;
        drop(known);
        (Box::new(Floats::new("synthetic data", [train, test], input, &scaling)), scaling)
    };
    Ok(Dataset::new(config, input, inputs, labels, scaling, notes)?.keep_back(selection))
}

/// What makes the samples: a prototype for each class, or a projection for each value.
struct Teacher {
    seed: u64,
    values: usize,
    len: usize,
    directions: Vec<Vec<f32>>,
}

impl Teacher {
    fn new(seed: u64, input: Shape, keys: &Keys) -> Self {
        let count = if keys.values > 0 { keys.values } else { keys.classes };
        let direction = |k: usize| {
            let mut stream = Stream::new(seed, Purpose::Synthetic, 0, k as u64);
            let noise: Vec<f32> = (0..input.len()).map(|_| symmetric(&mut stream)).collect();
            match input {
                // Tiles of 4x4 pixels, so that convolution and pooling see them too.
                Shape::Image { w, c, .. } => {
                    let tile = |i: usize| (i / (w * c) / 4 * 4 * w + i / c % w / 4 * 4) * c + i % c;
                    (0..input.len()).map(|i| noise[tile(i)]).collect()
                }
                _ => noise,
            }
        };
        Self { seed, values: keys.values, len: input.len(), directions: (0..count).map(direction).collect() }
    }

    /// `count` samples of a part, in memory order, and their targets: a class, or values.
    fn samples(&self, part: u64, count: usize) -> (Vec<f32>, Vec<f64>) {
        let mut x = Vec::with_capacity(count * self.len);
        let mut targets = Vec::with_capacity(count * self.values.max(1));
        for sample in 0..count {
            let mut stream = Stream::new(self.seed, Purpose::Synthetic, part, sample as u64);
            let start = x.len();
            if self.values == 0 {
                let class = stream.below(self.directions.len() as u32) as usize;
                targets.push(class as f64);
                x.extend(self.directions[class].iter().map(|&v| v + symmetric(&mut stream)));
            } else {
                x.extend((0..self.len).map(|_| symmetric(&mut stream)));
                // Scaled so that the angle's deviation is 1: each product's is 1/3.
                let scale = 3.0 / (self.len as f64).sqrt();
                for direction in &self.directions {
                    let products = direction.iter().zip(&x[start..]).map(|(&a, &b)| f64::from(a) * f64::from(b));
                    targets.push(libm::sin(products.sum::<f64>() * scale));
                }
            }
        }
        (x, targets)
    }
}

/// Uniform in -1 to 1.
fn symmetric(stream: &mut Stream) -> f32 {
    2.0 * stream.uniform() - 1.0
}
