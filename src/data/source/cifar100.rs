//! `cifar100`: the binary and the python version of CIFAR-100 (Krizhevsky, 2009), and CIFAR-10's python version.

use super::Source;
use crate::config::{DataConfig, Normalize};
use crate::data::format::cifar::{IMAGE_BYTES, Members, RECORD, batch, records};
use crate::data::format::files::{ends, list};
use crate::data::format::pickle::Pickle;
use crate::data::format::{file, reserve};
use crate::data::inputs::one_piece;
use crate::data::sample::pixel::{Pixels, append_planar, summaries};
use crate::data::transform::label::{Labels, numbered};
use crate::data::transform::normalize::Scaling;
use crate::data::transform::split::{Selection, learnt};
use crate::data::{Dataset, Input};
use crate::error::{Error, Result};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;

pub(super) const SOURCE: Source = Source {
    name: "cifar100",
    doc: "CIFAR-100's binary or python version: its folder, or cifar-100-binary.tar.gz or cifar-100-python.tar.gz",
    keys: &[("labels", "\"fine\" (100 classes) or \"coarse\" (20) (\"fine\")")],
    open,
    open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Given { mean: vec![0.5071, 0.4865, 0.4409], std: vec![0.2673, 0.2564, 0.2762] },
};

const INPUT: Shape = Shape::Image { c: 3, h: 32, w: 32 };

#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Granularity {
    #[default]
    Fine,
    Coarse,
}

impl Granularity {
    fn classes(self) -> usize {
        if self == Granularity::Fine { 100 } else { 20 }
    }

    fn key(self) -> &'static str {
        if self == Granularity::Fine { "fine_labels" } else { "coarse_labels" }
    }

    fn names(self) -> &'static str {
        if self == Granularity::Fine { "fine_label_names" } else { "coarse_label_names" }
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    labels: Granularity,
}

/// Images (N, 32, 32, 3) and labels of a part.
#[derive(Default)]
pub(super) struct Part {
    /// Images before these.
    first: usize,
    pub pixels: Vec<u8>,
    pub labels: Vec<u32>,
}

impl Part {
    /// Appends an image, whose label must be one of `classes`.
    fn push(&mut self, planes: &[u8], label: i64, classes: usize, path: &Path) -> Result<()> {
        if !(0..classes as i64).contains(&label) {
            let place = format!("{}, image {}", path.display(), self.first + self.labels.len());
            return Err(Error::data(place, format!("label {label} is none of {classes} classes"), "get the file anew"));
        }
        reserve(&mut self.pixels, IMAGE_BYTES, path)?;
        reserve(&mut self.labels, 1, path)?;
        append_planar(planes, 3, &mut self.pixels);
        self.labels.push(label as u32);
        Ok(())
    }
}

fn open(config: &DataConfig, seed: u64) -> Result<Dataset> {
    let Keys { labels } = config.source.parse()?;
    let path = super::path(config)?;
    let binary = ["train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt"];
    let python = ["train", "test", "meta"];
    let names: Vec<&str> = binary.into_iter().chain(python).collect();
    let inner = if path.join("cifar-100-binary").is_dir() { "cifar-100-binary" } else { "cifar-100-python" };
    let members = Members::open(path, &names, inner)?;
    let files =
        if members.has("train") && !members.has("train.bin") { ["train", "test"] } else { ["train.bin", "test.bin"] };
    let mut parts: [Part; 2] = Default::default();
    for (name, part) in files.iter().zip(&mut parts) {
        read(members.get(name)?, &members.place(name), labels, part)?;
    }
    let classes = class_names(&members, labels)?;
    dataset(config, seed, parts, classes)
}

/// A file of one part, of either version.
fn read(bytes: &[u8], path: &Path, labels: Granularity, part: &mut Part) -> Result<()> {
    let mut each = |planes: &[u8], label| part.push(planes, label, labels.classes(), path);
    if ends(path, &[".bin"]) {
        records(bytes, path, labels == Granularity::Coarse, &mut each)
    } else {
        batch(bytes, path, labels.key(), &mut each)
    }
}

/// The names beside the data; without them, numbers.
fn class_names(members: &Members, labels: Granularity) -> Result<Vec<String>> {
    let text = format!("{}.txt", labels.names());
    let (names, place) = if members.has(&text) {
        let lines = String::from_utf8_lossy(members.get(&text)?).into_owned();
        (
            lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
            members.place(&text),
        )
    } else if members.has("meta") {
        let place = members.place("meta");
        let pickle = Pickle::parse(members.get("meta")?, &place)?;
        (pickle.texts(pickle.get(labels.names())?)?, place)
    } else {
        return Ok(numbered(labels.classes()));
    };
    let names: Vec<String> = names;
    if names.len() != labels.classes() {
        let what = format!("{} names for {} classes", names.len(), labels.classes());
        return Err(Error::data(place.display().to_string(), what, "get the file anew"));
    }
    Ok(names)
}

fn dataset(config: &DataConfig, seed: u64, parts: [Part; 2], names: Vec<String>) -> Result<Dataset> {
    let note = format!("{} training and {} test images of 32x32", parts[0].labels.len(), parts[1].labels.len());
    let [train, test] = parts;
    let normalize = super::normalization(config)?;
    let selection = Selection::drawn(config, seed, train.labels.len());
    let scaling =
        Scaling::new(config, &normalize, 3, || Ok(summaries(&learnt(&selection, &train.pixels, IMAGE_BYTES), 3)))?;
    let inputs = Box::new(Pixels::new([train.pixels, test.pixels], (32, 32, 3), &scaling));
    let labels = Labels::Classes { names, of: [train.labels, test.labels] };
    Ok(Dataset::new(config, INPUT, inputs, labels, scaling, vec![note])?.keep_back(selection))
}

fn open_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Result<super::Pieces> {
    let Keys { labels } = config.source.parse()?;
    let mut file = crate::resource::open_file(path, "give a file such as test.bin or test")?;
    if ends(path, &[".bin"]) {
        let (trained, config, path, mut first) = (trained.clone(), config.clone(), path.to_owned(), 0);
        return Ok(Box::new(move |images| {
            let bytes = file::read_up_to(&mut file, &path, images.saturating_mul(RECORD) as u64)?;
            if bytes.is_empty() && first > 0 {
                return Ok(None);
            }
            let mut part = Part { first, ..Part::default() };
            read(&bytes, &path, labels, &mut part)?;
            first += part.labels.len();
            inputs(&trained, &config, part).map(Some)
        }));
    }
    let (folder, name) =
        (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default().to_string_lossy());
    let mut part = Part::default();
    read(Members::open(folder, &[&name], "")?.get(&name)?, path, labels, &mut part)?;
    inputs(trained, config, part).map(one_piece)
}

/// Images to predict, with their labels.
fn inputs(trained: &Input, config: &DataConfig, part: Part) -> Result<Dataset> {
    let inputs = Box::new(Pixels::new([Vec::new(), part.pixels], (32, 32, 3), &Scaling::of(trained)));
    let labels = match Labels::unknown(trained) {
        Labels::Classes { names, .. } => Labels::Classes { names, of: [Vec::new(), part.labels] },
        labels => labels,
    };
    Dataset::new(config, INPUT, inputs, labels, Scaling::of(trained), Vec::new())
}

/// The batches of CIFAR-10's python version, for [`super::cifar10`].
const BATCHES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];

/// Whether a path holds CIFAR-10's python version, and not the binary one.
pub(super) fn is_cifar10_python(path: &Path) -> bool {
    let inner = path.join("cifar-10-batches-py");
    let named = path.file_name().is_some_and(|name| name.to_string_lossy().contains("cifar-10-python"));
    let batch = |folder: &Path| list(folder).is_ok_and(|files| files.iter().any(|file| file.ends_with(BATCHES[0])));
    if path.is_dir() { inner.is_dir() || batch(path) } else { named }
}

/// CIFAR-10's python version.
pub(super) fn open_cifar10_python(config: &DataConfig, seed: u64, path: &Path, classes: &[&str]) -> Result<Dataset> {
    let members = Members::open(path, &BATCHES, "cifar-10-batches-py")?;
    let mut parts: [Part; 2] = Default::default();
    for (i, name) in BATCHES.iter().enumerate() {
        let (place, part) = (members.place(name), &mut parts[usize::from(i == 5)]);
        let each = &mut |planes: &[u8], label| part.push(planes, label, classes.len(), &place);
        batch(members.get(name)?, &place, "labels", each)?;
    }
    dataset(config, seed, parts, classes.iter().map(|&name| name.to_owned()).collect())
}

/// The images in a file, if it is a batch of CIFAR-10's python version: its first byte is no label.
pub(super) fn open_cifar10_python_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Option<Result<Dataset>> {
    let mut first = [0];
    let file = crate::resource::open_file(path, "check the path");
    let read = file.is_ok_and(|mut file| file.read_exact(&mut first).is_ok());
    (read && first[0] == 0x80).then(|| {
        let (folder, name) =
            (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default().to_string_lossy());
        let (members, mut part) = (Members::open(folder, &[&name], "")?, Part::default());
        let classes = trained.classes.len();
        batch(members.get(&name)?, path, "labels", &mut |planes, label| part.push(planes, label, classes, path))?;
        inputs(trained, config, part)
    })
}
