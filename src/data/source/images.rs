//! `images`: folders of PNG and JPEG pictures, one class a folder.

use super::Source;
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::data::format::image::{Folder, Picture, append_file, classes, loose, scan};
use crate::data::format::reserve;
use crate::data::sample::pixel::{Pixels, summaries};
use crate::data::transform::label::Labels;
use crate::data::transform::normalize::Scaling;
use crate::data::transform::split::{Selection, learnt};
use crate::data::{Dataset, Input};
use crate::error::{Error, Result};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub(super) const SOURCE: Source = Source {
    name: "images",
    doc: "a folder of PNG and JPEG pictures, one class a folder, in it `train/` and `test/` (or `val/`), or the classes at once",
    keys: &[
        ("size", "[height, width] to resize pictures to (none: all must be as the first)"),
        ("channels", "1 or 3 (none: as the first)"),
        ("test_fraction", "without a folder of test pictures, the share of each class to test on (0.2)"),
    ],
    open,
    open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Named(NormalizeMethod::None),
};

/// What folders of test pictures are called, the first there is.
const TEST: &[&str] = &["test", "val", "validation"];

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<(usize, usize)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<usize>,
    test_fraction: f64,
}

impl Default for Keys {
    fn default() -> Self {
        Self { size: None, channels: None, test_fraction: 0.2 }
    }
}

impl Picture {
    /// Checks the keys that say how pictures become arrays.
    pub(super) fn check(config: &DataConfig, size: Option<(usize, usize)>, channels: Option<usize>) -> Result<()> {
        const MOST: usize = 1 << 14;
        if size.is_some_and(|(h, w)| !(1..=MOST).contains(&h) || !(1..=MOST).contains(&w)) {
            let what = "no size of pictures";
            return Err(config.source.error("size", what, format!("give [height, width], each from 1 to {MOST}")));
        }
        if channels.is_some_and(|channels| ![1, 3].contains(&channels)) {
            return Err(config.source.error(
                "channels",
                "pictures have no such channels",
                "use 1 (grey) or 3 (colour)",
            ));
        }
        Ok(())
    }
}

/// The pictures of both parts.
fn parts(path: &Path, keys: &Keys) -> Result<[Folder; 2]> {
    let train = path.join("train");
    if !train.is_dir() {
        let classes = classes(path)?;
        let mut all = scan(path, classes.clone())?;
        let mut test = Vec::new();
        let mut seen = vec![0usize; classes.len()];
        // Evenly spread over each class, whatever its order.
        let quota = |n: usize| (n as f64 * keys.test_fraction).floor();
        all.files.retain(|(file, class)| {
            let n = &mut seen[*class as usize];
            *n += 1;
            let tested = quota(*n) > quota(*n - 1);
            if tested {
                test.push((file.clone(), *class));
            }
            !tested
        });
        return Ok([all, Folder { classes, files: test }]);
    }
    let classes = classes(&train)?;
    let test = TEST.iter().map(|name| path.join(name)).find(|folder| folder.is_dir());
    let test = match test {
        Some(folder) => scan(&folder, classes.clone())?,
        None => Folder::default(),
    };
    Ok([scan(&train, classes)?, test])
}

fn open(config: &DataConfig, seed: u64) -> Result<Dataset> {
    let keys: Keys = config.source.parse()?;
    Picture::check(config, keys.size, keys.channels)?;
    if !(0.0..1.0).contains(&keys.test_fraction) {
        let what = format!("{} is no share below 1", keys.test_fraction);
        return Err(config.source.error("test_fraction", what, "use 0 to below 1, such as 0.2"));
    }
    let path = super::path(config)?;
    if !path.is_dir() {
        let what = if path.exists() { "it is no folder" } else { "there is no such folder" };
        return Err(Error::io(path, what, "set data.path to a folder with one folder a class"));
    }
    let parts = parts(path, &keys)?;
    let mut picture = Picture { size: keys.size, resize: keys.size.is_some(), channels: keys.channels };
    let (mut pixels, mut of): ([Vec<u8>; 2], [Vec<u32>; 2]) = Default::default();
    for ((folder, pixels), of) in parts.iter().zip(&mut pixels).zip(&mut of) {
        reserve(of, folder.files.len(), path)?;
        for (file, class) in &folder.files {
            append_file(file, &mut picture, pixels)?;
            of.push(*class);
        }
    }
    let ((h, w), c) = (picture.size.unwrap_or_default(), picture.channels.unwrap_or_default());
    let names = parts[0].classes.clone();
    let note =
        format!("{} training and {} test pictures of {h}x{w}, {} classes", of[0].len(), of[1].len(), names.len());
    let selection = Selection::drawn(config, seed, of[0].len());
    let scaling = Scaling::new(config, &super::normalization(config)?, c, || {
        Ok(summaries(&learnt(&selection, &pixels[0], h * w * c), c))
    })?;
    let inputs = Box::new(Pixels::new(pixels, (h, w, c), &scaling));
    let labels = Labels::Classes { names, of };
    let dataset = Dataset::new(config, Shape::Image { c, h, w }, inputs, labels, scaling, vec![note])?;
    Ok(dataset.keep_back(selection))
}

/// A picture, or a folder of pictures or of the job's classes.
fn open_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Result<super::Pieces> {
    let keys: Keys = config.source.parse()?;
    let Shape::Image { c, h, w } = trained.shape else {
        return Err(Error::data(
            path.display().to_string(),
            "the job's samples are no images",
            "give its kind of file",
        ));
    };
    let mut picture = Picture { size: Some((h, w)), resize: keys.size.is_some(), channels: Some(c) };
    let inner = if path.is_dir() { classes(path)? } else { Vec::new() };
    let (files, labels) = match Labels::unknown(trained) {
        Labels::Classes { names, .. } if !inner.is_empty() => {
            let folder = scan(path, names.clone())?;
            let (files, of): (Vec<PathBuf>, Vec<u32>) = folder.files.into_iter().unzip();
            (files, Some((names, of)))
        }
        _ => (loose(path)?, None),
    };
    let (trained, config, mut at) = (trained.clone(), config.clone(), 0);
    Ok(Box::new(move |pictures| {
        if at > 0 && at == files.len() {
            return Ok(None);
        }
        let piece = at..at.saturating_add(pictures).min(files.len());
        at = piece.end;
        let mut pixels = Vec::new();
        for file in &files[piece.clone()] {
            append_file(file, &mut picture, &mut pixels)?;
        }
        let labels = match &labels {
            Some((names, of)) => Labels::Classes { names: names.clone(), of: [Vec::new(), of[piece].to_vec()] },
            None => Labels::unknown(&trained),
        };
        let scaling = Scaling::of(&trained);
        let inputs = Box::new(Pixels::new([Vec::new(), pixels], (h, w, c), &scaling));
        Dataset::new(&config, trained.shape, inputs, labels, scaling, Vec::new()).map(Some)
    }))
}
