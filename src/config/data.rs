//! The `[data]` table: the keys all sources share, and the source's own as a [`Component`].

use super::Component;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How raw values become network input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "is no normalisation: use \"none\", \"standard\", \"minmax\", \"window\" or { mean = [0.5], std = [0.5] }"
)]
pub enum Normalize {
    /// A method by name.
    Named(NormalizeMethod),
    /// Given mean and standard deviation, one for all or one for each channel or feature, in units where u8 images
    /// span 0 to 1.
    Given {
        /// Means.
        mean: Vec<f32>,
        /// Standard deviations.
        std: Vec<f32>,
    },
}

/// A way to normalise that is fitted on the training part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormalizeMethod {
    /// As it is (u8 images become 0 to 1).
    None,
    /// Zero mean and unit variance per channel or feature over the training part.
    Standard,
    /// 0 to 1 per feature (and ticker) over the training part.
    Minmax,
    /// Series only: each window by its own mean and standard deviation, the target by the same.
    Window,
}

/// A random change to a training image. Names and parameters are those of torchvision.transforms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Augmentation {
    /// Pads by `padding` on every side and cuts a random window of the original size.
    RandomCrop {
        /// Pixels of padding.
        padding: usize,
        /// What they are.
        #[serde(default)]
        padding_mode: PaddingMode,
    },
    /// Mirrors left-right with probability `p`.
    HorizontalFlip {
        /// Probability.
        #[serde(default = "half")]
        p: f32,
    },
    /// Mirrors upside down with probability `p`.
    VerticalFlip {
        /// Probability.
        #[serde(default = "half")]
        p: f32,
    },
    /// Paints a random rectangle with probability `p`.
    RandomErasing {
        /// Probability.
        #[serde(default = "half")]
        p: f32,
        /// Least and greatest share of the image's area.
        #[serde(default = "erased_share")]
        scale: [f32; 2],
        /// Least and greatest height over width.
        #[serde(default = "erased_ratio")]
        ratio: [f32; 2],
        /// The colour, in units where u8 images span 0 to 1.
        #[serde(default)]
        value: f32,
    },
    /// Turns by a random angle about the centre; black comes in.
    RandomRotation {
        /// Counter-clockwise: -degrees to degrees, or a range.
        degrees: Span,
    },
    /// Turns, moves, scales and shears; black comes in.
    RandomAffine {
        /// Clockwise: -degrees to degrees, or a range.
        degrees: Span,
        /// Greatest shares of width and height to move by, in whole pixels.
        #[serde(default)]
        translate: [f32; 2],
        /// Least and greatest factor.
        #[serde(default = "unscaled")]
        scale: [f32; 2],
        /// Degrees along x: -shear to shear, or a range.
        #[serde(default)]
        shear: Span,
    },
    /// Changes the colours, in a random order of the three.
    ColorJitter {
        /// A factor in 1 - b to 1 + b, or a range.
        #[serde(default)]
        brightness: Span,
        /// Likewise, about the mean grey.
        #[serde(default)]
        contrast: Span,
        /// Likewise, about each pixel's grey.
        #[serde(default)]
        saturation: Span,
    },
    /// Mixes each sample of a batch, and its target, with another of the batch: λ of the one and 1 - λ of the other, λ drawn
    /// from Beta(alpha, alpha) once a batch (Zhang et al., 2018). Of any samples, not of images alone.
    Mixup {
        /// Small: mostly nearly one of the two.
        alpha: f32,
    },
}

/// The order of the training samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "ShuffleText")]
pub enum Shuffle {
    /// As they are.
    No,
    /// Any order is as likely, anew each epoch.
    #[default]
    Exact,
    /// Blocks of consecutive samples in random order, and samples at random among those of some blocks.
    Blocks,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "is no order: use true, false or \"blocks\"")]
enum ShuffleText {
    Flag(bool),
    Named(InBlocks),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum InBlocks {
    Blocks,
}

impl From<ShuffleText> for Shuffle {
    fn from(text: ShuffleText) -> Self {
        match text {
            ShuffleText::Flag(false) => Shuffle::No,
            ShuffleText::Flag(true) => Shuffle::Exact,
            ShuffleText::Named(InBlocks::Blocks) => Shuffle::Blocks,
        }
    }
}

impl From<Shuffle> for toml::Value {
    fn from(shuffle: Shuffle) -> Self {
        match shuffle {
            Shuffle::No => false.into(),
            Shuffle::Exact => true.into(),
            Shuffle::Blocks => "blocks".into(),
        }
    }
}

/// Whether samples are kept in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "ResidentText")]
pub enum Resident {
    /// Where they find room.
    #[default]
    Auto,
    /// Always.
    Yes,
    /// Never: they are read as they are needed.
    No,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "is neither true nor false nor \"auto\"")]
enum ResidentText {
    Flag(bool),
    Named(Automatic),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Automatic {
    Auto,
}

impl From<ResidentText> for Resident {
    fn from(text: ResidentText) -> Self {
        match text {
            ResidentText::Flag(true) => Resident::Yes,
            ResidentText::Flag(false) => Resident::No,
            ResidentText::Named(Automatic::Auto) => Resident::Auto,
        }
    }
}

/// Which training samples an epoch has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// Each once.
    #[default]
    Once,
    /// As many in all, of each class equally many.
    Balanced,
}

/// What lies beyond the border of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaddingMode {
    /// Black.
    #[default]
    Zeros,
    /// The image, mirrored at its outermost pixels.
    Reflect,
}

/// A range: how far from the middle, or both ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "is neither a number nor a range of two")]
pub enum Span {
    /// To both sides.
    About(f32),
    /// From and to.
    Between([f32; 2]),
}

impl Default for Span {
    fn default() -> Self {
        Span::About(0.0)
    }
}

fn half() -> f32 {
    0.5
}

fn unscaled() -> [f32; 2] {
    [1.0, 1.0]
}

fn erased_share() -> [f32; 2] {
    [0.02, 0.33]
}

fn erased_ratio() -> [f32; 2] {
    [0.3, 3.3]
}

impl Augmentation {
    /// Each as in TOML and what it does, with its keys and defaults, for the documentation.
    pub const KINDS: [(&str, &str, &str); 8] = [
        (
            "random_crop",
            "pads every side and cuts a window of the image's size",
            "padding, padding_mode = \"zeros\" (or \"reflect\")",
        ),
        ("horizontal_flip", "mirrors left-right", "p = 0.5"),
        ("vertical_flip", "mirrors upside down", "p = 0.5"),
        (
            "random_erasing",
            "paints a rectangle (cutout); value in units where u8 spans 0 to 1",
            "p = 0.5, scale = [0.02, 0.33], ratio = [0.3, 3.3], value = 0",
        ),
        ("random_rotation", "turns about the centre, bilinear; black comes in", "degrees (a number or a range)"),
        (
            "random_affine",
            "turns, moves by whole pixels, scales and shears, bilinear; black comes in",
            "degrees, translate = [0, 0], scale = [1, 1], shear = 0",
        ),
        (
            "color_jitter",
            "changes brightness, contrast and saturation, in random order",
            "brightness = 0, contrast = 0, saturation = 0 (numbers or ranges)",
        ),
        (
            "mixup",
            "mixes each sample of a batch and its target with another's, by λ ~ Beta(alpha, alpha) of the step; the last step, of any \
             samples",
            "alpha",
        ),
    ];
}

/// The `[data]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct DataConfig {
    /// The source's kind and its own keys (the shared ones below are taken out).
    pub source: Component,
    /// A folder, a file, or the URL of one; None for sources that need none.
    pub path: Option<PathBuf>,
    /// The order of the training samples.
    pub shuffle: Shuffle,
    /// Whether samples are kept in memory. As it depends on this machine and changes no value, it is no part of the resolved job.
    pub resident: Resident,
    /// Which of them an epoch has.
    pub sampling: Sampling,
    /// Random changes to training images, in this order.
    pub augment: Vec<Augmentation>,
    /// None: the source's own default.
    pub normalize: Option<Normalize>,
    /// The share of the training part that is kept back to validate on: `train.validation`.
    pub validation: f64,
    /// Where copies of data at URLs are kept. As what this machine has, it is no part of the resolved job.
    pub cache: Option<PathBuf>,
    /// How much may be kept there, in GB. None: half of what is free.
    pub cache_gb: Option<f64>,
}

impl DataConfig {
    /// The keys that all sources take, and what they are, for the documentation.
    pub const KEYS: [(&str, &str); 8] = [
        ("path", "a folder, a file, or a URL of one: https, s3, az, abfss, hdfs or webhdfs"),
        (
            "shuffle",
            "whether training samples are shuffled anew each epoch; \"blocks\": blocks of about 256 KiB in random order, samples at \
             random within 32 MiB (true)",
        ),
        (
            "resident",
            "whether samples are kept in memory, one copy a host; false: they are read as they are needed, which HDF5 files and \
             CIFAR-10's .bin files allow; \"auto\": false where they would not fit (\"auto\")",
        ),
        (
            "sampling",
            "\"once\": each sample once an epoch; \"balanced\": an epoch has as many samples, of each class equally many, those of \
             rare ones repeated (\"once\")",
        ),
        ("augment", "random changes to training images, in this order ([])"),
        ("normalize", "\"none\", \"standard\", \"minmax\", \"window\" or { mean, std } (the source's own)"),
        ("cache", "the folder of this host where data at URLs are kept ($SLURM_TMPDIR, $TMPDIR or /tmp)"),
        ("cache_gb", "how many GB may be kept there; what was used least recently goes (half of what is free)"),
    ];

    /// Takes the shared keys out of the table.
    pub fn from_component(mut source: Component) -> Result<Self> {
        let path = source.take("path")?;
        let shuffle = source.take("shuffle")?.unwrap_or_default();
        let resident = source.take("resident")?.unwrap_or_default();
        let sampling = source.take("sampling")?.unwrap_or_default();
        let augment = source.take("augment")?.unwrap_or_default();
        let normalize = source.take("normalize")?;
        let cache: Option<PathBuf> = source.take("cache")?;
        if cache.as_ref().is_some_and(|cache| cache.as_os_str().is_empty()) {
            return Err(source.error("cache", "is empty", "give a folder, or leave it out"));
        }
        let cache_gb: Option<f64> = source.take("cache_gb")?;
        if cache_gb.is_some_and(|gb| !(gb > 0.0 && gb.is_finite())) {
            return Err(source.error("cache_gb", "is not above 0", "give how many GB may be kept, such as 20"));
        }
        Ok(Self { source, path, shuffle, resident, sampling, augment, normalize, cache, cache_gb, validation: 0.0 })
    }
}
