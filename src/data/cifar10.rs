//! `cifar10`: the binary version of CIFAR-10 (Krizhevsky, "Learning multiple layers of features from tiny images", 2009).
//!
//! A record is one label byte, then the red, green and blue planes of a 32x32 image, 1024 bytes each.

use super::dataset::Inputs;
use super::label::Labels;
use super::normalize::Scaling;
use super::pixel::{Pixels, append_planar, summaries};
use super::{Dataset, Source, file};
use crate::config::{DataConfig, Normalize};
use crate::error::{Error, Result};
use crate::resource::open_file;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::path::Path;

pub(super) const SOURCE: Source = Source {
    name: "cifar10",
    doc: "CIFAR-10's binary version: its folder, or cifar-10-binary.tar.gz",
    keys: &[],
    open,
    open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Given { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2470, 0.2435, 0.2616] },
};

const CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const FILES: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];
const TEST: usize = 5;
const RECORD_BYTES: usize = 3073;
/// Records read at a time.
const CHUNK: usize = 64;
const INPUT: Shape = Shape::Image { c: 3, h: 32, w: 32 };

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {}

/// Records taken apart: images (N, 32, 32, 3) and labels.
#[derive(Default)]
struct Images {
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

fn open(config: &DataConfig, _seed: u64) -> Result<Dataset> {
    let Keys {} = config.source.parse()?;
    let path = super::path(config)?;
    let mut parts = [Images::default(), Images::default()];
    if path.is_dir() {
        let inner = path.join("cifar-10-batches-bin");
        let folder = if path.join(FILES[0]).is_file() || !inner.is_dir() { path } else { &inner };
        for (i, name) in FILES.iter().enumerate() {
            append_file(&folder.join(name), &mut parts[usize::from(i == TEST)])?;
        }
    } else {
        read_archive(path, &mut parts)?;
    }
    let [train, test] = parts;
    let scaling = Scaling::new(config, &super::normalization(config)?, 3, || summaries(&train.pixels, 3))?;
    let note = format!("{} training and {} test images of 32x32", train.labels.len(), test.labels.len());
    let inputs = Inputs::Pixels(Pixels::new([train.pixels, test.pixels], (32, 32, 3), &scaling));
    let names = CLASSES.map(str::to_owned).to_vec();
    let labels = Labels::Classes { names, of: [train.labels, test.labels] };
    Dataset::new(config, INPUT, inputs, labels, scaling, vec![note])
}

fn open_inputs(dataset: &Dataset, config: &DataConfig, path: &Path) -> Result<Dataset> {
    let mut images = Images::default();
    append_file(path, &mut images)?;
    let inputs = Inputs::Pixels(Pixels::new([Vec::new(), images.pixels], (32, 32, 3), &dataset.scaling));
    let labels = Labels::Classes { names: CLASSES.map(str::to_owned).to_vec(), of: [Vec::new(), images.labels] };
    Dataset::new(config, INPUT, inputs, labels, dataset.scaling.clone(), Vec::new())
}

/// Takes the records of a file apart.
fn append_file(path: &Path, images: &mut Images) -> Result<()> {
    let mend = "set data.path to the folder with the six .bin files, or to cifar-10-binary.tar.gz";
    let failed = |e: io::Error| Error::io(path, e, mend);
    let mut file = open_file(path, mend)?;
    let bytes = file.metadata().map_err(failed)?.len();
    images.pixels.reserve(usize::try_from(bytes).unwrap_or(0));
    append(&mut file, &path.display().to_string(), &failed, images)
}

/// The six files in a .tar.gz, in whatever order they stand there.
fn read_archive(path: &Path, parts: &mut [Images; 2]) -> Result<()> {
    let broken = |e: std::io::Error| {
        let what = format!("it cannot be unpacked: {e}");
        Error::data(path.display().to_string(), what, "give a whole cifar-10-binary.tar.gz, or the folder in it")
    };
    let mut archive = tar::Archive::new(file::open(path)?);
    let mut files: [Option<Vec<u8>>; 6] = Default::default();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?;
        let Some(i) = FILES.iter().position(|file| name.file_name().is_some_and(|name| name == *file)) else {
            continue;
        };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        files[i] = Some(bytes);
    }
    for (i, bytes) in files.iter().enumerate() {
        let place = format!("{}, {}", path.display(), FILES[i]);
        let Some(bytes) = bytes else {
            return Err(Error::data(place, "no such file in the archive", "give a whole cifar-10-binary.tar.gz"));
        };
        append(&mut &bytes[..], &place, &broken, &mut parts[usize::from(i == TEST)])?;
    }
    Ok(())
}

/// Takes the records of one file apart, some at a time, so that no second copy of it is in memory.
fn append(reader: &mut dyn Read, place: &str, failed: &dyn Fn(io::Error) -> Error, images: &mut Images) -> Result<()> {
    let (mut records, mut at) = (Vec::with_capacity(CHUNK * RECORD_BYTES + 1), 0);
    loop {
        records.clear();
        reader.take((CHUNK * RECORD_BYTES) as u64).read_to_end(&mut records).map_err(failed)?;
        if (records.is_empty() && at == 0) || !records.len().is_multiple_of(RECORD_BYTES) {
            let what = format!("{} bytes are no whole number of records of {RECORD_BYTES}", at + records.len());
            return Err(Error::data(place, what, "the file is damaged or no CIFAR-10 binary; get it anew"));
        }
        for record in records.chunks_exact(RECORD_BYTES) {
            if usize::from(record[0]) >= CLASSES.len() {
                let place = format!("{place}, byte {at}");
                return Err(Error::data(place, format!("label {} is above 9", record[0]), "get the file anew"));
            }
            images.labels.push(u32::from(record[0]));
            append_planar(&record[1..], 3, &mut images.pixels);
            at += RECORD_BYTES;
        }
        if records.len() < CHUNK * RECORD_BYTES {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_the_same_however_many_are_read_at_a_time() -> Result<()> {
        for count in [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 3] {
            let byte = |i: usize| if i.is_multiple_of(RECORD_BYTES) { i / RECORD_BYTES % 10 } else { i % 251 } as u8;
            let bytes: Vec<u8> = (0..count * RECORD_BYTES).map(byte).collect();
            let (mut images, mut pixels) = (Images::default(), Vec::new());
            append(&mut &bytes[..], "a file", &|e| Error::internal("a file", e), &mut images)?;
            bytes.chunks_exact(RECORD_BYTES).for_each(|record| append_planar(&record[1..], 3, &mut pixels));
            assert!(images.pixels == pixels, "{count} records");
            assert_eq!(images.labels, (0..count as u32).map(|i| i % 10).collect::<Vec<_>>());
        }
        Ok(())
    }
}
