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

/// A random change to a training image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Augmentation {
    /// Zero-pads by `padding` on every side and cuts a random window of the original size.
    RandomCrop {
        /// Pixels of padding.
        padding: usize,
    },
    /// Mirrors left-right with probability `p`.
    HorizontalFlip {
        /// Probability.
        #[serde(default = "half")]
        p: f32,
    },
}

fn half() -> f32 {
    0.5
}

/// The `[data]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct DataConfig {
    /// The source's kind and its own keys (the shared ones below are taken out).
    pub source: Component,
    /// A folder, a file, or the URL of one; None for sources that need none.
    pub path: Option<PathBuf>,
    /// Whether the training samples are shuffled anew each epoch.
    pub shuffle: bool,
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
    pub const KEYS: [(&str, &str); 6] = [
        ("path", "a folder, a file, or a URL of one: https, s3, az, abfss, hdfs or webhdfs"),
        ("shuffle", "whether training samples are shuffled anew each epoch (true)"),
        ("augment", "random changes to training images, in this order ([])"),
        ("normalize", "\"none\", \"standard\", \"minmax\", \"window\" or { mean, std } (the source's own)"),
        ("cache", "the folder of this host where data at URLs are kept ($SLURM_TMPDIR, $TMPDIR or /tmp)"),
        ("cache_gb", "how many GB may be kept there; what was used least recently goes (half of what is free)"),
    ];

    /// Takes the shared keys out of the table.
    pub fn from_component(mut source: Component) -> Result<Self> {
        let path = source.take("path")?;
        let shuffle = source.take("shuffle")?.unwrap_or(true);
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
        Ok(Self { source, path, shuffle, augment, normalize, cache, cache_gb, validation: 0.0 })
    }
}
